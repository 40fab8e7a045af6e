"""The teacher without a student: what it makes of the rows held out, and how it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from cache import Cache
from pipeline.data.conversations import Turn
from pipeline.data.said import said_of
from pipeline.data.templates import TemplateName, render
from pipeline.data.tokens import tokenize_prompt, tokenize_segments
from pipeline.evaluation.losses import RowLosses
from pipeline.generation.writer import Sampling, Written
from pipeline.labels import IGNORE
from pipeline.model import token_losses
from pipeline.teacher.load import teacher_within
from pipeline.teacher.same import load_same_whole
from pipeline.training.examples import teachers_tokenizer


class TeacherAlone:
    """The whole teacher of a cache. It answers as it is meant to be asked: by its chat template, where it has one."""

    def __init__(self, name: str, cache: Cache, device: torch.device) -> None:
        """Load it.

        Raises:
            InputError: it is an encoder, is not there, or its weights are others.
        """
        self.model: Any = load_same_whole(name, cache.identity, device)
        self._cache, self._device = cache, device
        self._tokenizer = teachers_tokenizer(cache)
        self._template: TemplateName = "chat" if self._tokenizer.chat_template else cache.identity["template"]

    @torch.inference_mode()
    def row_losses(self, rows: Sequence[int], step: Callable[[int, int], None]) -> RowLosses:
        """Its loss on what a student of whole examples learns of some rows, in the template of the cache.

        Args:
            rows: indices in the cache.
            step: told how many are done, of how many.
        """
        nats, tokens = [], []
        identity = self._cache.identity
        teacher = teacher_within(self.model, [-1])
        for done, row in enumerate(rows):
            step(done, len(rows))
            segments = render(said_of(self._cache, row).turns, identity["template"], self._tokenizer)
            ids, learned = tokenize_segments(segments, self._tokenizer, identity["loss_on"])
            ids_1T = torch.tensor([ids], device=self._device)
            labels_1T = torch.where(torch.tensor([learned], device=self._device), ids_1T, IGNORE)
            labels_1T[:, 0] = IGNORE
            states_1TD = teacher.hidden_states(ids_1T)[-1]
            nats.append(float(token_losses(states_1TD, self.model.get_output_embeddings().weight, labels_1T).double().sum()))
            tokens.append(int((labels_1T != IGNORE).sum()))
        return RowLosses(tuple(self._cache.row_ids[row] for row in rows), np.array(nats), np.array(tokens, np.int64))

    @torch.inference_mode()
    def write(self, prompts: Sequence[Sequence[Turn]], sampling: Sampling) -> list[Written]:
        """Answer some prompts greedily, as one batch."""
        ids = [tokenize_prompt(turns, self._template, self._tokenizer) for turns in prompts]
        longest = max(map(len, ids))
        ends = self._ends()
        ids_BT = torch.tensor([[ends[0]] * (longest - len(each)) + each for each in ids], device=self._device)
        mask_BT = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in ids], device=self._device)
        written_BT = self.model.generate(
            ids_BT,
            attention_mask=mask_BT,
            max_new_tokens=sampling.max_new_tokens,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=ends[0],
            use_cache=True,
        )[:, longest:]
        return [self._cut(answer, ends) for answer in written_BT.tolist()]

    def _ends(self) -> list[int]:
        known = self.model.generation_config.eos_token_id
        known = known if isinstance(known, list) else [] if known is None else [known]
        return list(dict.fromkeys([int(self._cache.manifest.end_token_id), *map(int, known)]))

    def _cut(self, ids: list[int], ends: Sequence[int]) -> Written:
        length = next((place for place, token in enumerate(ids) if token in ends), len(ids))
        return Written(str(self._tokenizer.decode(ids[:length])), length < len(ids), length)
