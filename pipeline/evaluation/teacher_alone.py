"""The teacher as a baseline: its loss on held-out rows, and its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cache import Cache
from pipeline.conditions.cached import cached_part_of
from pipeline.data.conversations import Turn
from pipeline.data.templates import render
from pipeline.data.tokens import tokenize_parts
from pipeline.data.transcript import transcript_of
from pipeline.evaluation.cost import reading_flops
from pipeline.evaluation.losses import RowLosses
from pipeline.generation.answers import Written
from pipeline.generation.causal_lm import CausalLMWriter, own_template
from pipeline.generation.settings import Sampling
from pipeline.progress import Progress
from pipeline.runs.examples import teachers_tokenizer
from pipeline.teacher.load import teacher_from_causal_lm
from pipeline.teacher.model import Teacher
from pipeline.teacher.verified_load import load_verified_causal_lm

_CHUNK_TOKENS = 256
"""Tokens whose logits are computed at a time."""


class TeacherAlone:
    """A cache's teacher with its LM head; it answers in its chat template, if it has one."""

    def __init__(self, location: str, cache: Cache, device: torch.device) -> None:
        """Load the teacher.

        Raises:
            InputError: it is missing, or its weights differ.
        """
        self._model: Any = load_verified_causal_lm(location, cache.identity, device)
        self._cache, self._device = cache, device
        self._tokenizer = teachers_tokenizer(cache)
        template = own_template(self._tokenizer, cache.identity["template"])
        self._writer = CausalLMWriter(self._model, self._tokenizer, template)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return int(self._model.num_parameters())

    @torch.inference_mode()
    def row_losses(self, rows: Sequence[int], progress: Progress) -> RowLosses:
        """Return the loss on the tokens that a student of whole examples learns.

        Args:
            rows: indices in the cache.
            progress: counts the rows.

        Raises:
            InputError: the predictions depend on more than the LM head.
        """
        nats, tokens, sizes = [], [], []
        teacher = teacher_from_causal_lm(self._model, [-1])
        progress.stage("teacher: loss", len(rows))
        for row in rows:
            ids, loss_mask = self._tokens(row)
            places = [place for place, learned in enumerate(loss_mask) if learned and place]
            ids_T = torch.tensor(ids, device=self._device)
            states_TD = teacher.hidden_states(ids_T[None])[-1][0]
            nats.append(self._nats(teacher, states_TD, ids_T, places))
            tokens.append(len(places))
            sizes.append(transcript_of(self._cache, row).learned_bytes)
            progress.advance()
        return RowLosses(
            row_ids=tuple(self._cache.row_ids[row] for row in rows),
            nats=np.array(nats),
            tokens=np.array(tokens, np.int64),
            text_bytes=np.array(sizes, np.int64),
        )

    def _tokens(self, row: int) -> tuple[list[int], list[bool]]:
        """Return token ids and loss mask of a whole example, re-rendered for a cache of prompts."""
        identity = self._cache.identity
        if cached_part_of(identity).is_whole:
            example = self._cache.coded_example(row, ())
            return example.input_ids.tolist(), example.loss_mask.tolist()
        turns = transcript_of(self._cache, row).turns
        parts = render(turns, identity["template"], self._tokenizer)
        return tokenize_parts(parts, self._tokenizer, identity["loss_on"])

    def _nats(
        self, teacher: Teacher, states_TD: torch.Tensor, ids_T: torch.Tensor, places: Sequence[int]
    ) -> float:
        total = 0.0
        for start in range(0, len(places), _CHUNK_TOKENS):
            at_N = torch.tensor(places[start : start + _CHUNK_TOKENS], device=self._device)
            log_probabilities_NV = teacher.log_probabilities(states_TD[at_N - 1])
            total -= float(log_probabilities_NV.gather(1, ids_T[at_N, None]).double().sum())
        return total

    def write(self, prompts: Sequence[Sequence[Turn]], sampling: Sampling) -> list[Written]:
        """Answer prompts as one batch.

        Raises:
            InputError: its chat template rejects a prompt.
        """
        return self._writer.write(prompts, sampling)

    def flops_per_token(self, tokens: int) -> float:
        """Return the operations of `extract` per token of a text of `tokens` tokens.

        As in `extract`, blocks above the last cached layer are removed; afterwards the teacher
        cannot generate.
        """
        body = Teacher(self._model.base_model, self._cache.layers).body
        return reading_flops(body, tokens, self._device)
