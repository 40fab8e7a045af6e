"""The interface of conditions; code reads their properties instead of comparing names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from pipeline.conditions.cached import CachedPart
from pipeline.errors import InputError
from pipeline.shapes import Body, BridgeShape, CrossPlacement


class Condition(ABC):
    """A description of what a student reads.

    The classes that implement it are registered by its name, in one registry per room:
    `pipeline/batches/datasets.py`, `pipeline/model/bridges/registry.py`,
    `pipeline/generation/sources/registry.py`.
    """

    name: ClassVar[str]
    """Value of `--condition`, and of `condition` in config.json and run.json."""
    reads_states: ClassVar[bool]
    """Whether the student reads hidden states of a teacher."""
    own_tokens: ClassVar[bool]
    """Whether it reads student tokens, not the teacher's."""
    reads_prompt_tokens: ClassVar[bool]
    """Whether it always reads the tokens of the prompt, not only those of the answer."""
    is_aligned: ClassVar[bool]
    """Whether there is one state per token; otherwise the states are those of the prompt."""
    may_leak: ClassVar[bool]
    """Whether bidirectional cross-attention shows the student the answer."""
    caches: ClassVar[tuple[CachedPart, ...]]
    """The parts of examples that its cache may hold."""
    sizes_bridge_by: ClassVar[Literal["cross_layers", "cross_every"]]
    """The setting that determines the number of cross-attention layers; the other has no effect."""
    controls: ClassVar[tuple[str, ...]] = ("layer-0", "no-teacher")
    """Names of the controls that `--controls` trains."""
    without_teacher: ClassVar[str]
    """Condition of the control without a teacher."""
    trivial_ablations: ClassVar[frozenset[str]] = frozenset()
    """Ablations that are uninformative for every such student."""

    @abstractmethod
    def describe_input(self, shape: BridgeShape, layers: str) -> str:
        """Return what the student reads, for results; `layers` names the teacher's layers."""

    def trivial_note(self, shape: BridgeShape) -> str:
        """Return which ablations of a student are trivial, and why, for the report; '' if none."""
        return ""

    def aligns_states(self, shape: CrossPlacement) -> bool:
        """Return whether each token of a prompt reads one of its states."""
        return False

    @property
    def needs_live_teacher(self) -> bool:
        """Whether the student needs the teacher for every token that it generates."""
        return self.reads_states and self.is_aligned

    @property
    def reads_prompt_states(self) -> bool:
        """Whether the student needs the teacher once per prompt, or a cache of prompts."""
        return self.reads_states and not self.is_aligned

    def cross_layers(self, shape: BridgeShape, blocks: int) -> int:
        """Return the number of cross-attention layers for a decoder of `blocks` blocks."""
        places = self.cross_blocks(shape, blocks)
        return shape.cross_layers if places is None else len(places)

    def cross_blocks(self, shape: CrossPlacement, blocks: int) -> list[int] | None:
        """Return the blocks that a cross-attention layer precedes; None: all precede the student.

        Layers inside the student start closed, so that it first equals its bare decoder.
        """
        return None

    def require_bridge(self, shape: BridgeShape, body: Body) -> None:
        """Refuse a bridge that cannot be built around a decoder.

        Raises:
            InputError: names the option to change.
        """
        if self.cross_layers(shape, body.num_layers):
            shape.require_heads(body)
        self.require_placement(shape, body)
        self.require_readings(shape)
        option = f"--{self.sizes_bridge_by.replace('_', '-')}"
        shape.require_reads(self.cross_layers(shape, body.num_layers), option)

    def require_placement(self, shape: BridgeShape, body: Body) -> None:  # noqa: B027
        """Refuse a placement of layers that this condition does not support; most support all.

        Raises:
            InputError: names the option to change.
        """

    def require_readings(self, shape: BridgeShape) -> None:
        """Refuse options of a bridge to prompts; a condition with such a bridge allows them.

        Raises:
            InputError: names the option to omit.
        """
        for option, is_set in (
            ("--mix-layers", shape.mix_layers),
            ("--states-dropout", shape.states_dropout > 0),
            ("--prompt-text", shape.prompt_text),
            ("--join", shape.join != BridgeShape.join),
        ):
            if is_set:
                raise InputError(f"{option}: only for --condition prompt, not {self.name}; omit it")
