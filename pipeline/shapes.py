"""The sizes of new students, and the shape of their bridge: what an option of either may be is
known without torch."""

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
    """What a bridge's shape depends on, of a GPT-Neo's configuration."""

    hidden_size: int
    num_layers: int


@dataclass
class _Size:
    hidden_size: int
    num_layers: int


@dataclass(frozen=True)
class BridgeShape:
    """How a bridge is built (the paper leaves it open to study).

    Attributes:
        reads: teacher layers: one that all cross-attention layers look at, or one for each; the
            rest reads the last one.
        cross_every: with `condition="prompt"`, one layer stands before the last of every so many of
            GPT-Neo's blocks.
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
        """The layers that are read, each once."""
        return list(dict.fromkeys(self.reads))

    def layers_in(self, body: Body, condition: str) -> int:
        """How many cross-attention layers there are with such a GPT-Neo."""
        return body.num_layers // self.cross_every if condition == "prompt" else self.cross_layers

    def require_possible(self, body: Body, condition: str) -> None:
        """Refuse what cannot be built.

        Raises:
            InputError: says which option to change.
        """
        if body.hidden_size % self.cross_heads:
            raise InputError(
                f"--cross-heads {self.cross_heads}: do not divide the student's width"
                f" {body.hidden_size}; name one of"
                f" {', '.join(str(n) for n in range(1, 33) if body.hidden_size % n == 0)}"
            )
        layers = self.layers_in(body, condition)
        if condition == "prompt":
            if not layers:
                raise InputError(
                    f"--cross-every {self.cross_every}: this GPT-Neo has {body.num_layers} blocks;"
                    " choose fewer"
                )
            if self.gate == "none":
                raise InputError(
                    "--gate none: with --condition prompt a gate starts closed; choose channel or"
                    " scalar"
                )
            if self.cross_attention != "causal":
                raise InputError(
                    f"--cross-attention {self.cross_attention}: with --condition prompt all is"
                    " seen; leave it out"
                )
        if len(self.reads) not in (1, layers):
            named, by = (
                ",".join(map(str, self.reads)),
                "--cross-every" if condition == "prompt" else "--cross-layers",
            )
            raise InputError(
                f"--layers {named}: name one layer, or one for each of the {layers} cross-attention"
                f" layers ({by})"
            )

    def require_possible_in_size(self, student: str, condition: str) -> None:
        """As `require_possible`, where the student is a new one of a known size.

        Raises:
            InputError: says which option to change.
        """
        if student in SIZES:
            self.require_possible(
                _Size(SIZES[student]["hidden_size"], SIZES[student]["num_layers"]), condition
            )
