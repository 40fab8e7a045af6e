"""The settings of a training run: its options, what follows from them, and their contradictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cache.storage import LocationLike
from pipeline.batches.order import BatchSize
from pipeline.choices import PARTS, Part
from pipeline.conditions.cached import cached_part_of
from pipeline.conditions.interface import Condition
from pipeline.conditions.registry import condition_named
from pipeline.errors import InputError
from pipeline.option import CACHE_LOCATION, Option
from pipeline.runs.options import (
    LearningOptions,
    MachineOptions,
    OptimiserOptions,
    StudentOptions,
)
from pipeline.shapes import SIZES, BridgeShape, body_of_size

if TYPE_CHECKING:
    from cache.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class TrainSettings(StudentOptions, BridgeShape, LearningOptions, OptimiserOptions, MachineOptions):
    """One training run; each field is the option of that name of `train`."""

    cache: Annotated[
        LocationLike,
        Option("Complete cache: a folder, or s3://bucket/prefix.", metavar=CACHE_LOCATION),
    ]
    run: Annotated[Path, Option("Folder of the run.")]

    @property
    def layers_read(self) -> list[int]:
        """Return the cached layers whose states the student reads."""
        return self.teacher_layers if self.reads_states else []

    @property
    def layers_used(self) -> list[int]:
        """Return the cached layers that training reads: the student's, then the distilled one."""
        read = self.layers_read
        return [*read, -1] if self.distill and -1 not in read else read

    @property
    def distilled_layer(self) -> int | None:
        """Return the index in `layers_used` of the layer whose predictions are distilled."""
        return self.layers_used.index(-1) if self.distill else None

    @property
    def conditioning(self) -> Condition:
        """Return the description of the condition."""
        return condition_named(self.condition)

    @property
    def reads_states(self) -> bool:
        """Return whether the student reads a teacher's hidden states."""
        return self.conditioning.reads_states

    @property
    def own_tokens(self) -> bool:
        """Return whether the tokens are of the student's own tokenizer, not the teacher's."""
        return self.conditioning.own_tokens

    @property
    def aligns_states(self) -> bool:
        """Return whether each token of a prompt reads one of the teacher's states."""
        return self.conditioning.aligns_states(self)

    @property
    def size_of_batches(self) -> BatchSize:
        """Return the size of a batch, in examples or tokens."""
        return BatchSize(self.batch_size, self.batch_tokens)

    @property
    def keeps_head(self) -> bool:
        """Return whether the LM head is the decoder's own, and often tied to its embeddings."""
        return self.own_tokens and self.vocab == "whole"

    @property
    def freezes_decoder(self) -> bool:
        """Return whether the decoder's own weights are not trained."""
        return self.lora is not None or "student" in self.freeze

    @property
    def has_new_decoder(self) -> bool:
        """Return whether the decoder's weights are new, not pretrained."""
        return self.student in SIZES or self.new_weights

    @property
    def embeds_dataset(self) -> bool:
        """Return whether new embeddings span only the tokens that occur, as the LM head does."""
        in_dataset = self.vocab == "dataset"
        return in_dataset and self.has_new_decoder and not self.conditioning.is_aligned

    @property
    def trained_parts(self) -> set[Part]:
        """Return the parts that are trained; the LM head may belong to the decoder."""
        head_is_frozen = self.keeps_head or (self.own_tokens and self.freezes_decoder)
        return (
            {*PARTS}
            - {*self.freeze}
            - (set() if self.reads_states else {"bridge"})
            - ({"head"} if head_is_frozen else set())
        )

    @property
    def leaks(self) -> bool:
        """Return whether predictions can see the answer, so that the loss says little."""
        return self.conditioning.may_leak and self.cross_attention == "bidirectional"

    def require_comparisons(self, comparisons: Sequence[str]) -> None:
        """Raise InputError if this run cannot have comparison runs."""
        if comparisons and not self.reads_states:
            raise InputError(
                f"{comparisons[0]}: a student of --condition {self.condition} reads no teacher to"
                " compare with; omit --controls, --control-layers and --random-teacher"
            )
        if comparisons and self.report_to:
            raise InputError(
                "--report-to: reports one run; train the comparison runs afterwards, with --resume"
                " and without --report-to"
            )

    def require_sense(self) -> None:
        """Raise InputError for options that contradict each other, whatever the cache."""
        if not self.own_tokens and (self.student_tokenizer or self.max_answer_tokens):
            raise InputError(
                "--student-tokenizer, --max-answer-tokens: only for --condition prompt or text,"
                " where the student has its own tokens; omit them"
            )
        if not self.layers and self.condition != "prompt":
            raise InputError(
                f"--layers auto: only for --condition prompt, not {self.condition}; name the layer,"
                " such as --layers -1"
            )
        if self.own_tokens and self.distill:
            raise InputError(
                "--distill: the teacher predicts its own tokens, but a student of --condition"
                " prompt or text has others; omit --distill"
            )
        if self.new_weights and self.student in SIZES:
            raise InputError(
                f"--new-weights: --student {self.student} has new weights already; omit it"
            )
        if self.own_tokens and self.head_init == "teacher":
            raise InputError(
                f"--head-init teacher: with --condition {self.condition} the LM head is the"
                " decoder's; omit it"
            )
        if self.cross_init == "self" and not self.conditioning.reads_prompt_states:
            raise InputError(
                f"--cross-init self: with --condition {self.condition} cross-attention precedes no"
                " block; omit it"
            )
        if self.cross_init == "self" and self.has_new_decoder:
            raise InputError(
                f"--cross-init self: --student {self.student} has new weights; omit it"
            )
        if self.cross_init == "self" and "cross" not in self.join:
            raise InputError(
                f"--cross-init self: --join {' --join '.join(self.join)} has no cross-attention;"
                " omit it, or add --join cross"
            )
        if self.mix_layers and not self.layers:
            raise InputError(
                "--mix-layers: --layers auto reads a single layer; name several, or omit it"
            )
        if self.keeps_head and "head" in self.freeze:
            raise InputError(
                "--freeze head: the LM head is the decoder's own; use --freeze student, or --vocab"
                " dataset"
            )
        if self.lora is not None and self.has_new_decoder:
            raise InputError(
                f"--lora {self.lora}: adapts pretrained weights, but --student {self.student} has"
                " new ones; omit it"
            )
        if self.lora is not None and "student" in self.freeze:
            raise InputError(
                f"--lora {self.lora}: trains adapters of the student, and --freeze student nothing"
                " of it; use one of them"
            )
        if self.schedule != "constant" and self.patience:
            raise InputError(
                f"--schedule {self.schedule}: learning rates fall until the last step, which an"
                " early stop would never reach; use --patience 0"
            )
        if not self.trained_parts:
            raise InputError(
                f"--freeze {' --freeze '.join(self.freeze)}: nothing is left to train (--condition"
                f" {self.condition})"
            )
        if self.reads_states and (body := body_of_size(self.student)) is not None:
            self.conditioning.require_bridge(self, body)

    def require_states_of(self, address: str, manifest: Manifest) -> None:
        """Raise InputError if a cache lacks the states that the student reads."""
        part = cached_part_of(manifest.identity)
        if part not in self.conditioning.caches:
            raise InputError(
                f"{address}: holds the states of {part.holds}; train with --condition {part.name}"
            )
        if missing := [layer for layer in self.layers_read if layer not in manifest.layers]:
            there = ",".join(map(str, manifest.layers))
            extract = f"extract with --layers {there},{missing[0]}"
            raise InputError(f"{address}: holds layer {there}, not layer {missing[0]}; {extract}")

    def batches_per_step(self, processes: int) -> int:
        """Return the batches per optimiser step, over all processes."""
        return self.accumulate or processes
