"""Measurements of a student on held-out rows, except its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from pipeline.batches.collate import collate
from pipeline.batches.decoder import StatesDecoder
from pipeline.batches.examples import CachedExamples
from pipeline.batches.order import BatchOrder, Group, Window, order_of
from pipeline.data.vocabulary import kept_head
from pipeline.evaluation.ablations import (
    MismatchedPrompts,
    MismatchedStates,
    ShuffledStates,
    ZeroedStates,
    causal_attention,
    shut_gates,
)
from pipeline.evaluation.cost import training_flops
from pipeline.evaluation.losses import RowLosses, row_losses
from pipeline.evaluation.open_runs import OpenRun
from pipeline.evaluation.results import Leak
from pipeline.labels import IGNORE
from pipeline.model import LLMModulesForCausalLM
from pipeline.model.weights import decoder_weights
from pipeline.runs.examples import examples_of


class HeldOutStudent:
    """A trained student and its held-out rows."""

    def __init__(
        self, run: OpenRun, model: LLMModulesForCausalLM, tokenizer: Any, rows: Sequence[int]
    ) -> None:
        """Prepare the batches.

        Args:
            run: of the student.
            model: the student, on its device.
            tokenizer: the student's.
            rows: indices in the run's cache.
        """
        self._distill = run.settings.distill
        self._settings = replace(run.settings, distill=0.0)  # soft targets are for training only
        self._cache, self._model, self._rows = run.cache, model, list(rows)
        codecs = [self._cache.codecs[layer] for layer in self._settings.layers_read]
        self._decoder = StatesDecoder(codecs).to(model.device)
        self._examples = examples_of(self._settings, self._cache, self._rows, tokenizer)
        self._order = order_of(
            self._cache,
            self._examples.indices,
            self._examples.sizes,
            self._settings.size_of_batches,
            0,
        )

    def losses(self) -> RowLosses:
        """Return the loss of each row."""
        return self._row_losses(self._examples, self._order, self._decoder)

    def flops_per_token(self) -> float:
        """Return the operations of training per token read, counted on the median-length row.

        Those of adapters (LoRA), which are merged and small, are left out.
        """
        if self._settings.max_steps == 0:
            return 0.0
        batch = self._median_row()
        flops = training_flops(self._model, batch, self._frozen())
        if self._distill:
            learned = int((batch["labels"][:, 1:] != IGNORE).sum())
            tokens = int(batch["attention_mask"].sum())
            flops += 2.0 * kept_head(self._cache, "--distill")[1].numel() * learned / tokens
        return flops

    def _frozen(self) -> list[nn.Parameter]:
        """Return the weights that were not trained.

        With adapters in all blocks, gradients reach the first block, as those of embeddings do.
        """
        model, settings = self._model, self._settings
        decoder = decoder_weights(model)
        embeddings = model.get_input_embeddings()
        kept = {id(weights) for weights in (embeddings.parameters() if embeddings else ())}
        frozen: list[nn.Parameter] = []
        if "bridge" in settings.freeze:
            frozen += model.bridge.parameters()
        if "head" in settings.freeze:
            frozen += model.lm_head.parameters()
        if "student" in settings.freeze:
            frozen += decoder
        elif settings.lora is not None:
            frozen += [weights for weights in decoder if id(weights) not in kept]
        return frozen

    def leak(self, reported: float) -> Leak:
        """Return the leak: the difference of the `reported` loss to that under causal attention."""
        with causal_attention(self._model):
            causal = self.losses().loss
        return Leak(reported=reported, causal=causal, leaked=causal - reported)

    def ablations(self, matched: float) -> dict[str, float]:
        """Return the loss under each ablation; `matched` is the loss without ablation."""
        losses = {"matched": matched}
        if (mismatched := self._mismatched()) is not None:
            losses["mismatched"] = mismatched
        losses["shuffled"] = self._loss_with(ShuffledStates(self._decoder))
        losses["zeroed"] = self._loss_with(ZeroedStates(self._decoder))
        if self._model.config.cross_layers:
            with shut_gates(self._model):
                losses["gates shut"] = self.losses().loss
        layers = self._settings.layers_read
        for number, layer in enumerate(layers if len(layers) > 1 else ()):
            losses[f"without layer {layer}"] = self._loss_with(
                ZeroedStates(self._decoder, number, len(layers))
            )
        return losses

    def _mismatched(self) -> float | None:
        """Return the loss with the states of other examples, None if there are no others."""
        if not self._settings.conditioning.is_aligned:
            if len(set(self._examples.indices)) < 2:
                return None
            examples = MismatchedPrompts(self._examples)
            return self._row_losses(examples, self._order, self._decoder).loss
        if len(self._rows) < 2:
            return None
        order = BatchOrder([Window([], _pairs(len(self._rows)))], 0)
        return self._row_losses(self._examples, order, MismatchedStates(self._decoder)).loss

    def _loss_with(self, decoder: torch.nn.Module) -> float:
        return self._row_losses(self._examples, self._order, decoder).loss

    def _row_losses(
        self, examples: CachedExamples, order: BatchOrder, decoder: torch.nn.Module
    ) -> RowLosses:
        return row_losses(self._model, examples, order, decoder, self._model.device)

    def _median_row(self) -> dict[str, Any]:
        lengths = self._examples.lengths
        by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
        row = collate(self._examples.__getitems__([by_length[len(by_length) // 2]]))
        decoded: dict[str, Any] = self._decoder(
            {name: value.to(self._model.device) for name, value in row.items()}
        )
        return decoded


def _pairs(rows: int) -> list[Group]:
    """Return batches of two rows; the last has three if the number is odd."""
    starts = range(0, rows - rows % 2, 2)
    return [
        Group(list(range(start, rows if start == starts[-1] else start + 2)), 3) for start in starts
    ]
