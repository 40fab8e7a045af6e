"""The options that choose the codec of each layer's hidden states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cache.names import EXACT
from pipeline.codec_fit.requirements import ANY_LAYER, LAST_LAYER, PRESET_COSTS, PRESETS
from pipeline.option import Option

_PRESETS = ", ".join(
    f"{name} ({measure}={value:g}: costs a student up to {PRESET_COSTS[name]:g} % of its loss)"
    for name, (measure, value) in PRESETS.items()
)
Codec = Annotated[
    tuple[str, ...],
    Option(
        "How states are stored: bf16 exactly, int8 at half the size, klt at a sixth or less. Repeat"
        " it for single layers: --codec klt --codec 0:bf16.",
        metavar=f"[LAYER:]{EXACT}|int8|klt",
    ),
]


@dataclass(frozen=True, kw_only=True)
class CodecOptions:
    """The codec of each layer, and how it is fitted; one value for all layers, or LAYER:VALUE."""

    codec: Codec = (EXACT,)
    fidelity: Annotated[
        tuple[str, ...],
        Option(
            "klt: limit of the error: kl=X (KL divergence of the teacher's predictions in nats per"
            f" token; last layer only), rel=X (relative error), or a preset: {_PRESETS}.",
            metavar="[LAYER:]kl=X|rel=X|PRESET",
            default=f"{LAST_LAYER[0]}={LAST_LAYER[1]:g} for the last layer if the teacher is"
            f" loaded, else {ANY_LAYER[0]}={ANY_LAYER[1]:g}",
        ),
    ] = ()
    bits: Annotated[
        tuple[str, ...],
        Option("klt: bits per value, instead of --fidelity.", metavar="[LAYER:]X"),
    ] = ()
    calibration_tokens: Annotated[
        int, Option("int8, klt: tokens of the data set to fit the codec to.", at_least=1)
    ] = 32768
    calibration_seed: Annotated[int, Option("int8, klt: seed of the choice of these tokens.")] = 0
