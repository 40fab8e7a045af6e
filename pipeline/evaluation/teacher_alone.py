"""The teacher without a student: what it makes of the rows held out, and how it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from cache import Cache
from pipeline.conditions.cached import cached_part_of
from pipeline.data.conversations import Turn
from pipeline.data.templates import TemplateName, end_token_id, render
from pipeline.data.tokens import tokenize_parts, tokenize_prompt
from pipeline.data.transcript import transcript_of
from pipeline.evaluation.cost import reading_flops
from pipeline.evaluation.losses import RowLosses
from pipeline.generation.answers import Sampling, Written, cut_answer
from pipeline.generation.prompts import left_padded
from pipeline.runs.examples import teachers_tokenizer
from pipeline.teacher.load import teacher_from_causal_lm
from pipeline.teacher.model import Teacher
from pipeline.teacher.verified_load import load_verified_causal_lm

_AT_ONCE = 256
"""Tokens whose logits are made together."""


class TeacherAlone:
    """The whole teacher of a cache. It answers as it is meant to be asked: by its chat template,
    where it has one."""

    def __init__(self, name: str, cache: Cache, device: torch.device) -> None:
        """Load it.

        Raises:
            InputError: it is not there, or its weights are others.
        """
        self._model: Any = load_verified_causal_lm(name, cache.identity, device)
        self._cache, self._device = cache, device
        self._tokenizer = teachers_tokenizer(cache)
        self._template: TemplateName = (
            "chat" if self._tokenizer.chat_template else cache.identity["template"]
        )

    @property
    def parameters(self) -> int:
        """How many weights it has."""
        return int(self._model.num_parameters())

    @torch.inference_mode()
    def row_losses(self, rows: Sequence[int], step: Callable[[int, int], None]) -> RowLosses:
        """Its loss on what a student of whole examples learns of some rows, in the template of the
        cache.

        Args:
            rows: indices in the cache.
            step: told how many are done, of how many.

        Raises:
            InputError: it does more than its LM head to predict.
        """
        nats, tokens, sizes = [], [], []
        teacher = teacher_from_causal_lm(self._model, [-1])
        for done, row in enumerate(rows):
            step(done, len(rows))
            ids, learned = self._tokens_of(row)
            places = [place for place, learns in enumerate(learned) if learns and place]
            states_TD = teacher.hidden_states(torch.tensor([ids], device=self._device))[-1][0]
            nats.append(
                self._nats(teacher, states_TD, torch.tensor(ids, device=self._device), places)
            )
            tokens.append(len(places))
            sizes.append(transcript_of(self._cache, row).learned_bytes)
        row_ids = tuple(self._cache.row_ids[row] for row in rows)
        return RowLosses(
            row_ids, np.array(nats), np.array(tokens, np.int64), np.array(sizes, np.int64)
        )

    def _tokens_of(self, row: int) -> tuple[list[int], list[bool]]:
        """Token ids and loss mask of a whole example; a cache of prompts has them as text alone."""
        identity = self._cache.identity
        if cached_part_of(identity).is_whole:
            example = self._cache.coded_example(row, ())
            return example.input_ids.tolist(), example.loss_mask.tolist()
        segments = render(
            transcript_of(self._cache, row).turns, identity["template"], self._tokenizer
        )
        return tokenize_parts(segments, self._tokenizer, identity["loss_on"])

    def _nats(
        self, teacher: Teacher, states_TD: torch.Tensor, ids_T: torch.Tensor, places: Sequence[int]
    ) -> float:
        total = 0.0
        for start in range(0, len(places), _AT_ONCE):
            at_N = torch.tensor(places[start : start + _AT_ONCE], device=self._device)
            found_NV = teacher.log_probabilities(states_TD[at_N - 1])
            total -= float(found_NV.gather(1, ids_T[at_N, None]).double().sum())
        return total

    @torch.inference_mode()
    def write(self, prompts: Sequence[Sequence[Turn]], sampling: Sampling) -> list[Written]:
        """Answer some prompts greedily, as one batch.

        Raises:
            InputError: its chat template refuses a prompt.
        """
        ids = [tokenize_prompt(turns, self._template, self._tokenizer) for turns in prompts]
        ends = self._ends()
        ids_BT, mask_BT = left_padded(ids, ends[0], self._device)
        written_BT = self._model.generate(
            ids_BT,
            attention_mask=mask_BT,
            max_new_tokens=sampling.max_new_tokens,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=ends[0],
            use_cache=True,
        )[:, ids_BT.shape[1] :]
        return [cut_answer(answer, ends, self._tokenizer) for answer in written_BT.tolist()]

    def flops_a_token(self, tokens: int) -> float:
        """Operations that extract takes for a token of a text of so many: no block above the last
        cached layer is run.

        The blocks above are let go of: nothing can be written after this.
        """
        body = Teacher(self._model.base_model, self._cache.layers).body
        return reading_flops(body, tokens, self._device)

    def _ends(self) -> list[int]:
        known = self._model.generation_config.eos_token_id
        known = known if isinstance(known, list) else [] if known is None else [known]
        return list(
            dict.fromkeys([end_token_id(self._template, self._tokenizer), *map(int, known)])
        )
