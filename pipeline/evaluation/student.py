"""All that is measured on one student with the rows held out, but for its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from pipeline.batches.collate import collate
from pipeline.batches.decoder import StatesDecoder
from pipeline.batches.examples import CachedExamples
from pipeline.batches.order import BatchOrder, BatchSize, Group, Window, order_of
from pipeline.data.vocabulary import kept_head
from pipeline.evaluation.ablations import (
    NextOfBatch,
    NoStates,
    OtherPrompts,
    ShuffledStates,
    causal_attention,
    shut_gates,
)
from pipeline.evaluation.cost import training_flops
from pipeline.evaluation.losses import RowLosses, row_losses
from pipeline.evaluation.subjects import Subject
from pipeline.labels import IGNORE
from pipeline.model import LLMModulesForCausalLM
from pipeline.runs.examples import examples_of


class HeldOutStudent:
    """A trained student, and the rows held out."""

    def __init__(
        self, subject: Subject, model: LLMModulesForCausalLM, tokenizer: Any, rows: Sequence[int]
    ) -> None:
        """Take a student on its device; `rows` are indices in its cache."""
        self._distill = subject.settings.distill
        self._settings, self._cache = (
            replace(subject.settings, distill=0.0),
            subject.cache,
        )  # predictions are learned from alone
        self._model, self._tokenizer, self._rows = model, tokenizer, list(rows)
        self._device = model.device
        read = [self._cache.codecs[layer] for layer in self._settings.layers_read]
        self._decoder = StatesDecoder(read).to(self._device)
        self._examples = self._examples_of(self._rows)
        self._order = self._order_of(self._examples, self._settings.size_of_batches)

    def losses(self) -> RowLosses:
        """The loss of each row."""
        return self._losses_of(self._examples, self._order, self._decoder)

    def flops_a_token(self) -> float:
        """Operations that training took for a token that it read, counted on the row of middle
        length of those held out."""
        if self._settings.max_steps == 0:
            return 0.0
        batch = self._usual_row()
        flops = training_flops(self._model, batch)
        if self._distill:
            learned = int((batch["labels"][:, 1:] != IGNORE).sum()) / int(
                batch["attention_mask"].sum()
            )
            flops += 2.0 * kept_head(self._cache, "--distill")[1].numel() * learned
        return flops

    def leak(self, reported: float) -> dict[str, float]:
        """What a student that sees the answer owes to that: its loss as reported, and when it sees
        no later token."""
        with causal_attention(self._model):
            closed = self.losses().loss
        return {"reported": reported, "causal": closed, "leaked": closed - reported}

    def features(self, matched: float) -> dict[str, float]:
        """Losses with the states changed, and with the gates forced shut; `matched` is that of the
        states as they are."""
        found = {"matched": matched}
        aligned = self._settings.conditioning.is_aligned
        if not aligned and len(set(self._examples.indices)) > 1:
            found["mismatched"] = self._losses_of(
                OtherPrompts(self._examples), self._order, self._decoder
            ).loss
        elif aligned and len(self._rows) > 1:
            order = BatchOrder([Window([], _pairs(len(self._rows)))], 0)
            found["mismatched"] = self._losses_of(
                self._examples, order, NextOfBatch(self._decoder)
            ).loss
        found["shuffled"] = self._loss_with(ShuffledStates(self._decoder))
        found["zeroed"] = self._loss_with(NoStates(self._decoder))
        if self._model.config.cross_layers:
            with shut_gates(self._model):
                found["gates shut"] = self.losses().loss
        layers = self._settings.layers_read
        for number, layer in enumerate(layers if len(layers) > 1 else ()):
            found[f"without layer {layer}"] = self._loss_with(
                NoStates(self._decoder, number, len(layers))
            )
        return found

    def _loss_with(self, decoder: torch.nn.Module) -> float:
        return self._losses_of(self._examples, self._order, decoder).loss

    def _losses_of(
        self, examples: CachedExamples, order: BatchOrder, decoder: torch.nn.Module
    ) -> RowLosses:
        return row_losses(self._model, examples, order, decoder, self._device)

    def _examples_of(self, rows: Sequence[int]) -> CachedExamples:
        return examples_of(self._settings, self._cache, rows, self._tokenizer)

    def _order_of(self, examples: CachedExamples, size: BatchSize) -> BatchOrder:
        return order_of(self._cache, examples.indices, examples.sizes, size, 0)

    def _usual_row(self) -> dict[str, Any]:
        by_length = sorted(
            range(len(self._examples)), key=lambda place: self._examples.lengths[place]
        )
        row = collate(self._examples.__getitems__([by_length[len(by_length) // 2]]))
        decoded: dict[str, Any] = self._decoder(
            {name: value.to(self._device) for name, value in row.items()}
        )
        return decoded


def _pairs(rows: int) -> list[Group]:
    """All rows, two by two, the last three together where they are odd."""
    starts = range(0, rows - rows % 2, 2)
    return [
        Group(list(range(start, rows if start == starts[-1] else start + 2)), 3) for start in starts
    ]
