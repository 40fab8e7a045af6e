"""Sizes of new students, and the shape of their bridge; loads without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from pipeline.choices import CrossAttention, Gate, Join
from pipeline.errors import InputError
from pipeline.option import Option

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
    """The sizes of a decoder that its bridge depends on."""

    hidden_size: int
    num_layers: int


class CrossPlacement(Protocol):
    """What places cross-attention layers inside a student."""

    @property
    def join(self) -> Sequence[str]:
        """How the states reach the student."""

    @property
    def cross_every(self) -> int:
        """Blocks per cross-attention layer."""


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
    """How a bridge is built (the paper leaves it open to study)."""

    layers: Annotated[
        tuple[int, ...],
        Option(
            "Cached teacher layers to read: one, or one per cross-attention layer; the bridge's"
            " direct path reads the last one. auto, with --condition prompt: the cached layer that"
            " a linear probe reads best (see cache probe).",
            takes_auto=True,
            default="-1; with --condition prompt auto",
        ),
    ] = (-1,)
    mix_layers: Annotated[
        bool,
        Option(
            "With --condition prompt: read one learned mean of all --layers, whose weights are in"
            " the report, in place of one per cross-attention layer."
        ),
    ] = False
    prompt_text: Annotated[
        bool,
        Option(
            "With --condition prompt: also read the prompt in the student's own tokens.",
            negatable=True,
            default="no for new decoders, yes for pretrained ones",
        ),
    ] = False
    join: Annotated[
        tuple[Join, ...],
        Option(
            "With --condition prompt, how the states reach the student; may be repeated. cross:"
            " Enhanced Cross-Attention inside its blocks. add: projected, and added to the"
            " embeddings of the prompt's tokens (needs --prompt-text)."
        ),
    ] = ("cross",)
    states_dropout: Annotated[
        float,
        Option(
            "With --condition prompt: share of the prompt's states that the student does not see,"
            " chosen anew at each training step; against overfitting to few rows.",
            at_least=0,
            below=1,
        ),
    ] = 0.0
    cross_layers: Annotated[
        int,
        Option("Enhanced Cross-Attention layers, with --condition sequence.", at_least=0),
    ] = 2
    cross_every: Annotated[
        int,
        Option(
            "With --condition prompt: one cross-attention layer per this many of the decoder's"
            " blocks, before the last of them; for --join cross.",
            at_least=1,
            default="1 for new decoders, 4 for pretrained ones",
        ),
    ] = 2
    cross_heads: Annotated[int, Option("Heads per cross-attention layer.", at_least=1)] = 8
    adapter_size: Annotated[
        int | None,
        Option(
            "Inner width of the adapters in the cross-attention layers.",
            at_least=1,
            default="a third of the student's width",
        ),
    ] = None
    gate: Annotated[
        Gate,
        Option(
            "How cross-attention mixes its output with its input. channel: by one gate per channel,"
            " computed from both. scalar: by one per token. static: by one per channel, the same"
            " for all tokens. none: by their sum (not with --condition prompt).",
            default="channel; with --condition prompt and pretrained decoders static",
        ),
    ] = "channel"
    cross_attention: Annotated[
        CrossAttention,
        Option(
            "bidirectional is the published code's variant; it leaks the answer and is labelled so."
        ),
    ] = "causal"

    @property
    def teacher_layers(self) -> list[int]:
        """The layers to read, without repetition."""
        return list(dict.fromkeys(self.layers))

    def require_heads(self, body: Body) -> None:
        """Raise InputError if the heads do not divide the student's width."""
        if body.hidden_size % self.cross_heads:
            divisors = (str(n) for n in range(1, 33) if body.hidden_size % n == 0)
            raise InputError(
                f"--cross-heads {self.cross_heads}: do not divide the student's width"
                f" {body.hidden_size}; use one of {', '.join(divisors)}"
            )

    def require_reads(self, cross_layers: int, option: str) -> None:
        """Raise InputError if the number of layers to read fits no `cross_layers` layers.

        Args:
            cross_layers: the number of cross-attention layers.
            option: the option that sets it, for the message.
        """
        if self.layers and not self.mix_layers and len(self.layers) not in (1, cross_layers):
            layers = ",".join(map(str, self.layers))
            raise InputError(
                f"--layers {layers}: name one layer, or one for each of the {cross_layers}"
                f" cross-attention layers ({option}), or add --mix-layers"
            )
