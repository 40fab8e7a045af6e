"""The description of a condition, which every room reads instead of comparing names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from pipeline.conditions.cached import CachedPart
from pipeline.shapes import Body, BridgeShape


class Condition(ABC):
    """What a student reads.

    The classes that do the work are looked up by its name, in one registry per room:
    `pipeline/batches/datasets.py`, `pipeline/model/bridges/registry.py`,
    `pipeline/generation/sources/registry.py`.
    """

    name: ClassVar[str]
    """Value of `--condition`, and of `condition` in config.json and run.json."""
    reads_states: ClassVar[bool]
    """Whether the student reads hidden states of a teacher."""
    own_tokens: ClassVar[bool]
    """Whether its tokens are those of the student's tokenizer, not the teacher's."""
    reads_prompt_tokens: ClassVar[bool]
    """Whether it reads the tokens of the prompt, not only those of the answer."""
    is_aligned: ClassVar[bool]
    """Whether there is one state per token; else the states are those of the prompt."""
    may_leak: ClassVar[bool]
    """Whether bidirectional cross-attention would show the student the answer."""
    caches: ClassVar[tuple[CachedPart, ...]]
    """What a cache may hold to serve it."""
    sizes_bridge_by: ClassVar[Literal["cross_layers", "cross_every"]]
    """The setting that gives the number of cross-attention layers; the other has no effect."""
    controls: ClassVar[tuple[str, ...]] = ("layer-0", "no-teacher")
    """Controls that `--controls` trains, by name."""
    without_teacher: ClassVar[str]
    """Condition of the control that has no teacher."""
    trivial_ablations: ClassVar[frozenset[str]]
    """Ablations that say nothing about such a student."""
    trivial_note: ClassVar[str]
    """Why they are trivial, for the report."""

    @abstractmethod
    def describe_input(self, layers: str) -> str:
        """Return what the student reads, for results; `layers` names the teacher's layers."""

    @property
    def needs_live_teacher(self) -> bool:
        """Whether the student needs the teacher for every token that it generates."""
        return self.reads_states and self.is_aligned

    @property
    def reads_prompt_states(self) -> bool:
        """Whether the student needs the teacher once per prompt, or a cache of prompts."""
        return self.reads_states and not self.is_aligned

    def cross_layers(self, shape: BridgeShape, blocks: int) -> int:
        """Return the number of cross-attention layers for a GPT-Neo of `blocks` blocks."""
        places = self.cross_blocks(shape.cross_every, blocks)
        return shape.cross_layers if places is None else len(places)

    def cross_blocks(self, cross_every: int, blocks: int) -> list[int] | None:
        """Return the blocks that have a cross-attention layer before them.

        None: the layers stand before GPT-Neo. Layers within it start closed, so that the
        untrained student is GPT-Neo.
        """
        return None

    def require_bridge(self, shape: BridgeShape, body: Body) -> None:
        """Refuse a bridge that cannot be built around a GPT-Neo.

        Raises:
            InputError: names the option to change.
        """
        shape.require_heads(body)
        self.require_placement(shape, body)
        option = f"--{self.sizes_bridge_by.replace('_', '-')}"
        shape.require_reads(self.cross_layers(shape, body.num_layers), option)

    def require_placement(self, shape: BridgeShape, body: Body) -> None:  # noqa: B027
        """Refuse what this condition cannot build; most build anything.

        Raises:
            InputError: names the option to change.
        """
