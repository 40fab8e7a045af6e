"""What the user asks of a training run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cache.storage import LocationLike
from pipeline.batches.order import BatchSize
from pipeline.conditions.cached import cached_part_of
from pipeline.conditions.interface import Condition
from pipeline.conditions.registry import condition_named
from pipeline.errors import InputError
from pipeline.shapes import SIZES, BridgeShape, body_of_size

if TYPE_CHECKING:
    from cache.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """One training run, as asked for on the command line; each field is the option of that name.

    Optimiser, epochs and bridge are the paper's by default (arXiv 2502.08213, section 4).

    Attributes:
        batch_size: examples a batch; `batch_tokens`, where given, takes its place: tokens a batch,
            padding included.
        accumulate: batches an optimiser step, of all processes together; None for one of each
            process.
        loader_workers: processes that read ahead, of each training process; None for 2 on a GPU,
            none on a CPU.
        student_tokenizer: where the student's own tokens are those of another tokenizer: hub id or
            folder; None: of the student itself, and for a new GPT-Neo the teacher's.
        max_answer_tokens: answers of more of the student's own tokens are left out.
        layers: which cached teacher layers the student reads: one, or one for each cross-attention
            layer (see `BridgeShape`).
        cross_layers, cross_every, cross_heads, adapter_size, gate, cross_attention: how the bridge
            is built.
        freeze: parts whose weights stay as they are: `gpt-neo`, `bridge`, `head`.
        condition: what the student reads, as in `LLMModulesConfig`.
        vocab: what the LM head spans: the `whole` vocabulary, or the tokens that occur in the
            `dataset`.
        head_init: what the LM head begins as: `random`, or the `teacher`'s, reduced to the
            student's width.
        new_weights: take the student's shape and tokens, and none of its weights.
        distill: share of the loss that is learned from the teacher's own predictions (see
            `SoftTargets`).
        bridge_lr, gpt_neo_lr: learning rates of what is new (bridge, LM head) and of GPT-Neo.
        patience, min_delta: stop after so many evaluations without an improvement of the validation
            loss of this much.
        gradient_checkpointing: compute GPT-Neo's blocks anew in the backward pass rather than keep
            what they give.
        report_to: services that are told of the run, beside TensorBoard's files; as `Trainer` names
            them.
        eval_every: optimiser steps between evaluations (and checkpoints); None for once an epoch.
        max_steps: stop after so many optimiser steps, whatever `epochs` says; None for no such
            limit.
    """

    cache: LocationLike
    run: Path
    student: str = "tiny"
    new_weights: bool = False
    student_tokenizer: str | None = None
    max_answer_tokens: int | None = None
    layers: tuple[int, ...] = (-1,)
    cross_layers: int = 2
    cross_every: int = 2
    cross_heads: int = 8
    adapter_size: int | None = None
    gate: Literal["channel", "scalar", "none"] = "channel"
    freeze: tuple[str, ...] = ()
    condition: Literal["sequence", "prompt", "none", "text"] = "sequence"
    cross_attention: Literal["causal", "bidirectional"] = "causal"
    vocab: Literal["whole", "dataset"] = "whole"
    head_init: Literal["random", "teacher"] = "random"
    distill: float = 0.0
    epochs: int = 15
    batch_size: int = 1
    batch_tokens: int | None = None
    accumulate: int | None = None
    bridge_lr: float = 1e-4
    gpt_neo_lr: float = 5e-5
    weight_decay: float = 0.01
    clip: float = 1.0
    patience: int = 5
    min_delta: float = 1e-4
    validation: float = 0.1
    eval_every: int | None = None
    max_steps: int | None = None
    log_every: int = 10
    seed: int = 0
    gradient_checkpointing: bool = False
    report_to: tuple[str, ...] = ()
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "auto"
    loader_workers: int | None = None

    @property
    def bridge(self) -> BridgeShape:
        """How the bridge is built."""
        return BridgeShape(
            reads=self.layers,
            cross_layers=self.cross_layers,
            cross_every=self.cross_every,
            cross_heads=self.cross_heads,
            adapter_size=self.adapter_size,
            gate=self.gate,
            cross_attention=self.cross_attention,
        )

    @property
    def layers_read(self) -> list[int]:
        """The cached layers whose states the student reads; none where it reads tokens."""
        return self.bridge.teacher_layers if self.reads_states else []

    @property
    def layers_used(self) -> list[int]:
        """The cached layers that training needs: those that the student reads, and then the one
        that predicts for it."""
        read = self.layers_read
        return [*read, -1] if self.distill and -1 not in read else read

    @property
    def layer_that_predicts(self) -> int | None:
        """Which of `layers_used` predicts for the teacher; None where nothing is learned from its
        predictions."""
        return self.layers_used.index(-1) if self.distill else None

    @property
    def conditioning(self) -> Condition:
        """What follows from the condition."""
        return condition_named(self.condition)

    @property
    def reads_states(self) -> bool:
        """Whether the student reads a teacher's hidden states."""
        return self.conditioning.reads_states

    @property
    def own_tokens(self) -> bool:
        """Whether the student's tokens are its own, and not the teacher's."""
        return self.conditioning.own_tokens

    @property
    def size_of_batches(self) -> BatchSize:
        """How much makes a batch."""
        return BatchSize(self.batch_size, self.batch_tokens)

    @property
    def has_tied_head(self) -> bool:
        """Whether the LM head's weights are those of GPT-Neo's token embeddings."""
        return self.own_tokens and self.vocab == "whole"

    @property
    def trained_parts(self) -> set[str]:
        """Parts of the student whose weights are trained; a whole head over its own tokens is
        GPT-Neo's embeddings."""
        return (
            {*PARTS}
            - {*self.freeze}
            - (set() if self.reads_states else {"bridge"})
            - ({"head"} if self.has_tied_head else set())
        )

    @property
    def leaks(self) -> bool:
        """True where a prediction can see the answer, so that its loss says little about
        generation."""
        return self.conditioning.may_leak and self.cross_attention == "bidirectional"

    def require_comparisons(self, comparisons: Sequence[str]) -> None:
        """Refuse comparison runs that this run cannot have.

        Raises:
            InputError: says what to leave out.
        """
        if comparisons and not self.reads_states:
            raise InputError(
                f"{comparisons[0]}: a student of --condition {self.condition} reads no teacher to"
                " compare with; train it without --controls, --control-layers and --random-teacher"
            )
        if comparisons and self.report_to:
            raise InputError(
                "--report-to: reports one run; train its comparison runs afterwards, with --resume"
                " and without --report-to"
            )

    def require_sense(self) -> None:
        """Refuse options that contradict each other, whatever the cache.

        Raises:
            InputError: says which one to change or leave out.
        """
        if not self.own_tokens and (self.student_tokenizer or self.max_answer_tokens):
            raise InputError(
                "--student-tokenizer, --max-answer-tokens: are for --condition prompt or text,"
                " where tokens are the student's own"
            )
        if self.own_tokens and self.distill:
            raise InputError(
                "--distill: the teacher predicts its own tokens, a student of --condition prompt or"
                " text has others"
            )
        if self.new_weights and self.student in SIZES:
            raise InputError(
                f"--new-weights: those of --student {self.student} are new already; leave it out"
            )
        if self.own_tokens and self.head_init == "teacher":
            raise InputError(
                "--head-init teacher: the head of --condition prompt is GPT-Neo's own; leave it out"
            )
        if self.has_tied_head and "head" in self.freeze:
            raise InputError(
                "--freeze head: over its own tokens the LM head is GPT-Neo's embeddings; --freeze"
                " gpt-neo, or --vocab dataset"
            )
        if not self.trained_parts:
            raise InputError(
                f"--freeze {' --freeze '.join(self.freeze)}: nothing is left to train (--condition"
                f" {self.condition})"
            )
        if self.reads_states and (body := body_of_size(self.student)) is not None:
            self.conditioning.require_bridge(self.bridge, body)

    def require_states_of(self, address: str, manifest: Manifest) -> None:
        """Refuse a cache that lacks what the student reads.

        Raises:
            InputError: says what it holds, and how to extract the rest.
        """
        part = cached_part_of(manifest.identity)
        if part not in self.conditioning.caches:
            raise InputError(
                f"{address}: holds the states of {part.holds}; train with --condition {part.name}"
            )
        if missing := [layer for layer in self.layers_read if layer not in manifest.layers]:
            there = ",".join(map(str, manifest.layers))
            extract = f"extract with --layers {there},{missing[0]}"
            raise InputError(f"{address}: holds layer {there}, not layer {missing[0]}; {extract}")

    def batches_a_step(self, processes: int) -> int:
        """Batches an optimiser step, of all processes together."""
        return self.accumulate or processes

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            item.name: _json_value(getattr(self, item.name)) for item in dataclasses.fields(self)
        }


def _json_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


PARTS = ("gpt-neo", "bridge", "head")
"""What of a student may be frozen."""
