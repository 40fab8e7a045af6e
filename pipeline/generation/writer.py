"""Generate text with a trained student, loaded once for any number of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import set_seed

from cache import Cache
from pipeline.data.conversations import Turn
from pipeline.data.templates import TemplateName
from pipeline.data.tokenizer import load_verified_tokenizer
from pipeline.data.tokens import require_known_tokens
from pipeline.errors import InputError
from pipeline.generation.answers import AnswerStream, Written, cut_answer
from pipeline.generation.prompts import left_padded, tokens_before
from pipeline.generation.settings import Sampling
from pipeline.generation.sources.interface import SourceOptions, StatesSource
from pipeline.generation.sources.registry import SOURCES
from pipeline.generation.sources.tokens import NoSource
from pipeline.model import LLMModulesForCausalLM
from pipeline.pretrained.load import load_error_reason, load_weights
from pipeline.runs.folder import RunFolder
from pipeline.teacher.model import Teacher


class StudentWriter:
    """A student with its tokenizer and the source of its hidden states."""

    def __init__(
        self,
        run: RunFolder,
        load_teacher: Callable[[], Teacher] | None,
        device: torch.device,
        cache: Cache | None = None,
        *,
        keep_teacher: bool = True,
    ) -> None:
        """Load a finished run's student.

        Args:
            run: the run.
            load_teacher: loads its teacher; called now if the student needs it for every token,
                otherwise when a prompt needs it. None: nothing will be generated.
            device: of the student.
            cache: of prompts whose states need no teacher.
            keep_teacher: keep a teacher that only reads prompts in memory between them.

        Raises:
            InputError: the run is not finished, its model cannot be loaded, or its teacher is an
                encoder.
        """
        self.record = run.require_finished()
        identity = self.record.identity
        self.template: TemplateName = identity.cache["template"]
        self.device = device
        try:
            self.model = load_weights(LLMModulesForCausalLM, run.model).eval()
            torch.nn.Module.to(self.model, device)
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(
                f"{run.model}: the student cannot be loaded ({load_error_reason(error)})"
            ) from error
        config = self.model.config
        self.tokenizer = load_verified_tokenizer(run.model, identity.student_tokenizer)
        self._pad = config.pad_token_id
        self._source: StatesSource = NoSource()
        if load_teacher is not None:
            options = SourceOptions(
                run=str(run.root),
                layers=config.teacher_layers,
                load_teacher=load_teacher,
                device=device,
                tokenizer=self.tokenizer,
                aligned=config.aligns_states,
                template=self.template,
                teachers_tokenizer=(
                    load_verified_tokenizer(run.teachers_tokenizer, identity.cache["tokenizer"])
                    if config.own_tokens
                    else self.tokenizer
                ),
                cache=cache,
                keep_teacher=keep_teacher,
            )
            self._source = SOURCES[config.condition](options)

    def opening(self, system: str | None = None) -> list[Turn]:
        """Return the first turns of a conversation.

        Args:
            system: the system prompt, '' for none; None: that of the training data.
        """
        text = self.record.provenance["system_prompt"] if system is None else system
        return [Turn("system", text)] if text else []

    def write(
        self,
        prompts: Sequence[Sequence[Turn]],
        sampling: Sampling,
        streamer: Callable[[str], None] | None = None,
    ) -> list[Written]:
        """Answer prompts as one batch.

        Args:
            prompts: the turns before each answer.
            sampling: the sampling options.
            streamer: called with each new piece of text (one prompt only).

        Raises:
            InputError: a prompt leaves no room for an answer, or has tokens without an embedding.
        """
        ids = [self._tokens_before(turns) for turns in prompts]
        for prompt in ids:
            require_known_tokens(prompt, self.model.config.vocab_size, self.tokenizer)
        longest = max(len(prompt) for prompt in ids)
        room = self._require_room(longest, sampling.max_new_tokens)
        ids_BT, mask_BT = left_padded(ids, self._pad, self.device)
        set_seed(sampling.seed)
        arguments: dict[str, Any] = sampling.generate_arguments(self.tokenizer)
        if self.model.config.leaks:  # like the published code, recompute all states in each step
            arguments["use_cache"] = False
        written_BT = self.model.generate(
            ids_BT,
            attention_mask=mask_BT,
            max_new_tokens=room,
            streamer=(
                None if streamer is None else AnswerStream(self.tokenizer, streamer, sampling.stop)
            ),
            **arguments,
            **self._source.generate_arguments(prompts),
        )[:, longest:]
        ends = (self.model.config.eos_token_id, self._pad)
        return [
            cut_answer(answer.tolist(), ends, self.tokenizer, sampling.stop)
            for answer in written_BT
        ]

    @torch.no_grad()
    def log_likelihood(self, turns: Sequence[Turn], answer: str) -> tuple[float, bool]:
        """Return the log-probability (nats) of an answer, and whether it is the greedy one.

        Raises:
            InputError: prompt and answer are too long for the student, or it sees the answer.
        """
        if self.model.config.leaks:
            raise InputError(
                "this student sees the text that it predicts, so its likelihood is meaningless"
            )
        ids = self._tokens_before(turns)
        answer_ids = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        whole_1T = torch.tensor([ids + answer_ids], device=self.device)
        limit = self.model.config.positions
        if limit is not None and whole_1T.shape[1] > limit:
            raise InputError(
                f"prompt and answer have {whole_1T.shape[1]} tokens, more than this student reads"
            )
        states = self._source.forward_arguments(turns, whole_1T)
        logits_TV = self.model(input_ids=whole_1T, **states).logits[0, len(ids) - 1 : -1].float()
        answer_T = whole_1T[0, len(ids) :]
        nats_T = logits_TV.log_softmax(dim=-1).gather(-1, answer_T[:, None])
        return float(nats_T.sum()), bool((logits_TV.argmax(dim=-1) == answer_T).all())

    def _tokens_before(self, turns: Sequence[Turn]) -> list[int]:
        return tokens_before(turns, self.model.config, self.template, self.tokenizer)

    def _require_room(self, tokens: int, wanted: int) -> int:
        """Return how many of `wanted` tokens fit after a prompt of `tokens`.

        Raises:
            InputError: there is no room for any.
        """
        limits = {
            limit: reader
            for limit, reader in (
                (self._source.context, "its teacher"),
                (self.model.config.positions, "this student"),
            )
            if limit is not None
        }
        if not limits:
            return wanted
        limit = min(limits)
        if limit <= tokens:
            raise InputError(
                f"the prompt has {tokens} tokens, {limits[limit]} reads {limit}; shorten it"
            )
        return min(wanted, limit - tokens)
