"""A trained student that writes: loaded once, asked as often as one likes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase, TextStreamer, set_seed

from cache import Cache
from pipeline.data.conversations import Turn
from pipeline.data.student_tokens import prompt_tokens
from pipeline.data.templates import TemplateName
from pipeline.data.tokenizer import load_verified_tokenizer
from pipeline.data.tokens import require_known_tokens, tokenize_prompt
from pipeline.errors import InputError
from pipeline.generation.live_teacher import LiveTeacher
from pipeline.generation.prompt_states import PromptStates
from pipeline.model import LLMModulesConfig, LLMModulesForCausalLM
from pipeline.pretrained.load import load_error_reason, load_weights
from pipeline.runs.folder import RunFolder
from pipeline.teacher.model import Teacher


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, and what ends an answer beside its end token.

    Attributes:
        temperature: 0 always takes the likeliest.
        stop: texts; an answer ends before the first of them.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """One answer: its text, whether the student ended it itself, and its length in tokens."""

    text: str
    stopped: bool
    tokens: int


def tokens_before(
    turns: Sequence[Turn],
    config: LLMModulesConfig,
    template: TemplateName,
    tokenizer: PreTrainedTokenizerBase,
) -> list[int]:
    """The tokens of its own tokenizer that a student itself reads before it writes."""
    if config.own_tokens:
        return prompt_tokens(turns if config.condition == "text" else None, tokenizer)
    return tokenize_prompt(turns, template, tokenizer)


class StudentWriter:
    """A student with its tokenizer and, where it reads hidden states, what gives them."""

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
            load_teacher: gives its teacher; called now where the student needs it for every token,
                else when a prompt asks for it. None: nothing will be written.
            device: of the student.
            cache: of prompts whose states need no teacher.
            keep_teacher: keep it in memory for the next prompts, where it is needed for prompts
                alone.

        Raises:
            InputError: the run is not finished, its model cannot be loaded, or its teacher is an
                encoder.
        """
        self.record = run.require_finished()
        identity = self.record["identity"]
        self.template: TemplateName = identity["cache"]["template"]
        self.device = device
        try:
            self.model = load_weights(LLMModulesForCausalLM, run.model).eval()
            torch.nn.Module.to(self.model, device)
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(
                f"{run.model}: the student cannot be loaded ({load_error_reason(error)})"
            ) from error
        config = self.model.config
        self.tokenizer = load_verified_tokenizer(run.model, identity["student_tokenizer"])
        self._teachers_tokenizer = (
            load_verified_tokenizer(run.teachers_tokenizer, identity["cache"]["tokenizer"])
            if config.own_tokens
            else self.tokenizer
        )
        self._pad = config.pad_token_id
        self._teacher: Teacher | None = None
        self._prompts: PromptStates | None = None
        if load_teacher is not None and config.condition == "sequence":
            self._teacher = load_teacher()
            if not self._teacher.causal:
                raise InputError(
                    f"{run.root}: its teacher is an encoder, whose states of the prompt change with"
                    " each token that is written: this student cannot write; evaluate it with"
                    " --samples 0"
                )
        elif load_teacher is not None and config.condition == "prompt":
            self._prompts = PromptStates(
                config.teacher_layers, load_teacher, cache, keep_teacher=keep_teacher
            )

    def opening(self, system: str | None = None) -> list[Turn]:
        """How a conversation begins: with this system prompt ('' for none), or the one that the
        student has learned with."""
        text = self.record["provenance"]["system_prompt"] if system is None else system
        return [Turn("system", text)] if text else []

    def write(
        self,
        prompts: Sequence[Sequence[Turn]],
        sampling: Sampling,
        streamer: Callable[[str], None] | None = None,
    ) -> list[Written]:
        """Answer some prompts as one batch; `streamer` is called with each new piece of text (one
        prompt only).

        Raises:
            InputError: a prompt leaves no room for an answer, or has tokens that the model has no
                embedding for.
        """
        ids = [
            tokens_before(turns, self.model.config, self.template, self.tokenizer)
            for turns in prompts
        ]
        for prompt in ids:
            require_known_tokens(prompt, self.model.config.vocab_size, self.tokenizer)
        longest = max(len(prompt) for prompt in ids)
        who, most = "this student", self.model.config.body.max_position_embeddings
        if (
            self._teacher is not None
            and self._teacher.context_length is not None
            and self._teacher.context_length < most
        ):
            who, most = "its teacher", self._teacher.context_length
        if (room := most - longest) < 1:
            raise InputError(
                f"the prompt has {longest} tokens, {who} reads {most}; ask something shorter"
            )
        ids_BT, mask_BT = left_padded(ids, self._pad, self.device)
        set_seed(sampling.seed)
        options: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            options = {
                "do_sample": True,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": 0,
            }
        if sampling.stop:
            options |= {"stop_strings": list(sampling.stop), "tokenizer": self.tokenizer}
        if (
            self.model.config.leaks
        ):  # as in the published code, whose tokens see all states up to now, at each token anew
            options["use_cache"] = False
        if self._teacher is not None:
            options["reader"] = LiveTeacher(
                self._teacher, self.model.config.teacher_layers, self.device
            )
        options |= self._states_of(prompts)
        written_BT = self.model.generate(
            ids_BT,
            attention_mask=mask_BT,
            max_new_tokens=min(sampling.max_new_tokens, room),
            streamer=None if streamer is None else _Stream(self.tokenizer, streamer, sampling.stop),
            **options,
        )[:, longest:]
        ends = (self.model.config.eos_token_id, self._pad)
        return [
            cut_answer(answer.tolist(), ends, self.tokenizer, sampling.stop)
            for answer in written_BT
        ]

    @torch.no_grad()
    def log_likelihood(self, turns: Sequence[Turn], answer: str) -> tuple[float, bool]:
        """Log-probability (nats) of an answer's tokens after a prompt, and whether each is the
        likeliest one.

        Raises:
            InputError: prompt and answer are longer than the student reads, or it sees what it is
                to predict.
        """
        if self.model.config.leaks:
            raise InputError(
                "this student sees the text that it is to predict, so nothing can be said of its"
                " likelihood"
            )
        ids = tokens_before(turns, self.model.config, self.template, self.tokenizer)
        written = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        whole_1T = torch.tensor([ids + written], device=self.device)
        if whole_1T.shape[1] > self.model.config.body.max_position_embeddings:
            raise InputError(
                f"prompt and answer have {whole_1T.shape[1]} tokens, more than this student reads"
            )
        given = self._states_of([turns])
        if self._teacher is not None:
            reader = LiveTeacher(self._teacher, self.model.config.teacher_layers, self.device)
            given["hidden_states"] = reader.read(whole_1T, None, 0)
        logits_TV = self.model(input_ids=whole_1T, **given).logits[0, len(ids) - 1 : -1].float()
        said_T = whole_1T[0, len(ids) :]
        found_T = logits_TV.log_softmax(dim=-1).gather(-1, said_T[:, None])
        return float(found_T.sum()), bool((logits_TV.argmax(dim=-1) == said_T).all())

    def _states_of(self, prompts: Sequence[Sequence[Turn]]) -> dict[str, torch.Tensor]:
        """The teacher's states of whole prompts and their mask, by the names of the model's
        arguments, where it looks at them."""
        if self._prompts is None:
            return {}
        read = [
            tokenize_prompt(turns, self.template, self._teachers_tokenizer) for turns in prompts
        ]
        hidden_BKD, mask_BK = self._prompts.read(read)
        return {"hidden_states": hidden_BKD.to(self.device), "states_mask": mask_BK.to(self.device)}


def left_padded(
    ids: Sequence[list[int]], pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts as one batch `[B, T]` that ends where each of them does, and its mask, 0 for
    padding."""
    longest = max(map(len, ids))
    ids_BT = torch.tensor([[pad] * (longest - len(each)) + each for each in ids], device=device)
    mask_BT = torch.tensor(
        [[0] * (longest - len(each)) + [1] * len(each) for each in ids], device=device
    )
    return ids_BT, mask_BT


def cut_answer(
    ids: list[int],
    ends: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    stop: Sequence[str] = (),
) -> Written:
    """An answer without what comes after its end.

    Args:
        ids: its tokens.
        ends: tokens that end it, or fill up a batch behind its end.
        tokenizer: decodes them.
        stop: texts before the first of which it ends.
    """
    length = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    text = str(tokenizer.decode(ids[:length]))
    cuts = [place for each in stop if (place := text.find(each)) >= 0]
    return Written(text[: min(cuts)] if cuts else text, bool(cuts) or length < len(ids), length)


class _Stream(TextStreamer):
    """Hands each finished piece of text on, but for what may become a text that stops the
    answer."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        receive: Callable[[str], None],
        stop: Sequence[str],
    ) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._receive, self._stop, self._held = receive, stop, ""
        self._longest, self._is_over = max(map(len, stop), default=1) - 1, False

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Called by `generate` as words are finished."""
        self._held += text
        cuts = [place for each in self._stop if (place := self._held.find(each)) >= 0]
        ready = (
            min(cuts)
            if cuts
            else len(self._held)
            if stream_end
            else max(0, len(self._held) - self._longest)
        )
        if not self._is_over:
            self._receive(self._held[:ready])
        self._held, self._is_over = self._held[ready:], self._is_over or bool(cuts)
