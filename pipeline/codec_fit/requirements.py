"""What the user asks of the codecs, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cache.names import CODEC_NAMES, EXACT
from pipeline.errors import InputError

Measure = Literal["kl", "rel", "bits"]

PRESETS: dict[str, tuple[Measure, float]] = {"close": ("kl", 0.01), "small": ("kl", 0.03)}
"""Names for KL divergences in nats a token. `PRESET_COSTS` tells what they cost a student."""
PRESET_COSTS = {"close": 0.2, "small": 0.5}
"""Percent of its validation loss that a student loses at most, as measured with Qwen2.5-0.5B
(docs/LOG.md, section 8)."""
LAST_LAYER: tuple[Measure, float] = PRESETS["close"]
"""What is asked of `klt` for the layer that the LM head reads, where the user asks for nothing."""
ANY_LAYER: tuple[Measure, float] = ("rel", 0.09)
"""The same for other layers, and wherever no teacher is at hand to measure a KL divergence."""
BITS_OF_EXACT = 16
"""Bits a value that the exact codec takes."""
_RATE = {"kl": (0.01, 2.4, 0.5), "rel": (0.09, 2.6, 1.0)}
"""Measured on Qwen2.5-0.5B's last layer: at this value so many bits, and so many less for each
doubling."""


@dataclass(frozen=True)
class CodecRequirement:
    """What is asked of one layer's codec.

    Attributes:
        name: of the codec.
        measure, target: of `klt`: a KL divergence in nats a token, a relative error, or bits a
            value, not to be exceeded.
        calibration_tokens, seed: of the sample that the codec is fitted to.
    """

    name: str
    measure: Measure | None = None
    target: float = 0.0
    calibration_tokens: int = 0
    seed: int = 0

    def as_json(self) -> dict[str, Any]:
        """As the cache's identity has it."""
        if self.name == EXACT:
            return {}
        asked = {} if self.measure is None else {"asked": f"{self.measure}={self.target:g}"}
        return {
            **asked,
            "calibration_tokens": self.calibration_tokens,
            "calibration_seed": self.seed,
        }

    @property
    def identity(self) -> Any:
        """As `cache.codecs.fit_file.identity_of` gives it once the codec is fitted, less the
        fit."""
        return EXACT if self.name == EXACT else {"name": self.name, **self.as_json()}

    @property
    def expected_bits(self) -> float:
        """About how many bits a value will take, before anything is known of the data."""
        if self.measure is None or self.measure == "bits":
            return self.target or 16.0
        usual, bits, slope = _RATE[self.measure]
        return max(0.2, bits - slope * math.log2(self.target / usual))


def codec_requirements(
    layers: Sequence[int],
    last_layer: int | None,
    *,
    codec: Sequence[str],
    fidelity: Sequence[str],
    bits: Sequence[str],
    calibration_tokens: int,
    seed: int,
    default_of_last: tuple[Measure, float] = LAST_LAYER,
    last_is_known: bool = True,
) -> dict[int, CodecRequirement]:
    """What is asked of each layer's codec.

    Args:
        layers: the layers to be stored.
        last_layer: the one of them that the LM head reads, if it is there and the teacher is at
            hand.
        codec, fidelity, bits: as on the command line: `VALUE` for all layers, or `LAYER:VALUE`.
        calibration_tokens, seed: of the sample.
        default_of_last: what is asked of `klt` for the last layer where the user asks for nothing.
        last_is_known: False before anything is known of the teacher: then any layer may be the last
            one.

    Raises:
        InputError: an unknown codec or fidelity, a layer that is not stored, or something asked of
            a codec that cannot give it.
    """
    names = dict.fromkeys(layers, EXACT) | by_layer("--codec", codec, layers)
    for name in names.values():
        if name not in CODEC_NAMES:
            raise InputError(
                f"--codec {name}: no such codec; choose {', '.join(CODEC_NAMES)}, or LAYER:CODEC"
                " for one layer"
            )
    fitted = [layer for layer in layers if names[layer] == "klt"]
    for option, values in (("--fidelity", fidelity), ("--bits", bits)):
        named = [
            layer for value in values if ":" in value for layer in by_layer(option, [value], layers)
        ]
        if values and (
            others := [layer for layer in named if layer not in fitted]
            or ([] if fitted else list(layers))
        ):
            raise InputError(
                f"layer {others[0]}: {option} is for --codec klt; {names[others[0]]} has a fixed"
                " rate"
            )
    told = {
        layer: text
        for layer, text in by_layer("--fidelity", fidelity, layers).items()
        if layer in fitted
    }
    wanted = {
        layer: _fidelity(text, layer, last_layer if last_is_known else layer)
        for layer, text in told.items()
    }
    for layer, text in by_layer("--bits", bits, layers).items():
        if layer in wanted:
            raise InputError(
                f"layer {layer}: --fidelity and --bits both say how it is to be stored; keep one of"
                " them"
            )
        wanted[layer] = ("bits", _positive("--bits", text))
        if wanted[layer][1] >= BITS_OF_EXACT:
            raise InputError(
                f"--bits {text}: {EXACT} takes {BITS_OF_EXACT} and is exact; ask for fewer"
            )
    asked = {}
    for layer, name in names.items():
        if name == EXACT:
            asked[layer] = CodecRequirement(name)
        elif name == "klt":
            measure, target = wanted.get(
                layer, default_of_last if layer == last_layer else ANY_LAYER
            )
            asked[layer] = CodecRequirement(name, measure, target, calibration_tokens, seed)
        else:
            asked[layer] = CodecRequirement(name, None, 0.0, calibration_tokens, seed)
    return asked


def by_layer(option: str, values: Sequence[str], layers: Sequence[int]) -> dict[int, str]:
    """The value for each layer; what is said of one layer goes before what is said of all."""
    of_all = [value for value in values if ":" not in value]
    if len(of_all) > 1:
        raise InputError(
            f"{option}: given twice for all layers ({', '.join(of_all)}); leave one out, or name"
            " its layer: LAYER:…"
        )
    of_one: dict[int, str] = {}
    for value in values:
        if ":" in value:
            name, _, rest = value.partition(":")
            if not name.strip().removeprefix("-").isdecimal() or int(name) not in layers:
                raise InputError(
                    f"{option} {value}: {name!r} is none of the layers"
                    f" {', '.join(map(str, layers))}; name one"
                )
            if int(name) in of_one:
                raise InputError(
                    f"{option}: given twice for layer {int(name)} ({of_one[int(name)]},"
                    f" {rest.strip()}); leave one out"
                )
            of_one[int(name)] = rest.strip()
    return (dict.fromkeys(layers, of_all[0]) if of_all else {}) | of_one


def _fidelity(text: str, layer: int, last_layer: int | None) -> tuple[Measure, float]:
    measure, _, value = text.partition("=")
    wanted = PRESETS.get(text) or (
        measure,
        _positive("--fidelity", value) if measure in ("kl", "rel") else 0.0,
    )
    if wanted[0] not in ("kl", "rel"):
        raise InputError(
            f"--fidelity {text}: write kl=0.01, rel=0.09, or one of {', '.join(PRESETS)}"
        )
    if wanted[0] == "rel" and wanted[1] >= 1:
        raise InputError(
            f"--fidelity {text}: an error as large as the states themselves; ask for less than 1"
        )
    if wanted[0] == "kl" and layer != last_layer:
        of_last = (
            ""
            if last_layer is None
            else f"ask it of the last layer alone (--fidelity {last_layer}:{text}), or "
        )
        raise InputError(
            f"--fidelity {text}: a KL divergence is measured with the LM head, which does not read"
            f" layer {layer}; {of_last}use rel=…"
        )
    return wanted[0], wanted[1]  # type: ignore[return-value]  # checked above


def _positive(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e6:
        raise InputError(f"{option}: {text!r} is not a number above 0")
    return value
