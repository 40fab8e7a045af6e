"""Sizes of new students and shape of their bridge, for options; loads without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.errors import InputError

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 128,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
    },
    "small": {
        "hidden_size": 384,
        "num_layers": 6,
        "num_heads": 6,
        "attention_types": [[["global", "local"], 3]],
    },
    "125m": {
        "hidden_size": 768,
        "num_layers": 12,
        "num_heads": 12,
        "attention_types": [[["global", "local"], 6]],
    },
}
"""New GPT-Neos by name: `tiny` trains in seconds on a CPU, `125m` has the shape of GPT-Neo-125M."""


class Body(Protocol):
    """The sizes of a GPT-Neo that its bridge depends on."""

    hidden_size: int
    num_layers: int


@dataclass
class _Size:
    hidden_size: int
    num_layers: int


def body_of_size(student: str) -> Body | None:
    """Return the sizes of a new student; None for a pretrained one, whose files have them."""
    if student not in SIZES:
        return None
    size = SIZES[student]
    return _Size(hidden_size=size["hidden_size"], num_layers=size["num_layers"])


@dataclass(frozen=True, kw_only=True)
class BridgeShape:
    """How a bridge is built (the paper leaves it open to study).

    Attributes:
        reads: teacher layers: one for all cross-attention layers, or one for each. The rest of the
            bridge reads the last one.
        cross_every: with `condition="prompt"`, one layer stands before the last of every
            `cross_every` of GPT-Neo's blocks.
        cross_layers, cross_heads: Enhanced Cross-Attention layers, and heads of each.
        adapter_size: inner width of their adapters; None: a third of the student's width.
        gate, cross_attention: as in `LLMModulesConfig`.
    """

    reads: tuple[int, ...] = (-1,)
    cross_layers: int = 2
    cross_every: int = 2
    cross_heads: int = 8
    adapter_size: int | None = None
    gate: str = "channel"
    cross_attention: str = "causal"

    @property
    def teacher_layers(self) -> list[int]:
        """The layers that are read, without repetition."""
        return list(dict.fromkeys(self.reads))

    def require_heads(self, body: Body) -> None:
        """Refuse heads that do not divide the student's width.

        Raises:
            InputError: lists the numbers that do.
        """
        if body.hidden_size % self.cross_heads:
            divisors = (str(n) for n in range(1, 33) if body.hidden_size % n == 0)
            raise InputError(
                f"--cross-heads {self.cross_heads}: do not divide the student's width"
                f" {body.hidden_size}; name one of {', '.join(divisors)}"
            )

    def require_reads(self, cross_layers: int, option: str) -> None:
        """Refuse a number of teacher layers that does not fit the cross-attention layers.

        Args:
            cross_layers: how many there are.
            option: sets their number.

        Raises:
            InputError: says how many layers to name.
        """
        if len(self.reads) not in (1, cross_layers):
            layers = ",".join(map(str, self.reads))
            raise InputError(
                f"--layers {layers}: name one layer, or one for each of the {cross_layers}"
                f" cross-attention layers ({option})"
            )
