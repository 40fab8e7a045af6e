"""Codec requirements: the options of a command, parsed for each layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cache.names import CODEC_NAMES, EXACT
from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.codec_fit.options import CodecOptions

Measure = Literal["kl", "rel", "bits"]
Target = tuple[Measure, float]

PRESETS: dict[str, Target] = {"close": ("kl", 0.01), "small": ("kl", 0.03)}
"""Names of KL divergences in nats per token; `PRESET_COSTS` says what they cost a student."""
PRESET_COSTS = {"close": 0.2, "small": 0.5}
"""Largest increase of a student's loss in percent, with Qwen2.5-0.5B (docs/LOG.md, section 8)."""
LAST_LAYER: Target = PRESETS["close"]
"""Default requirement of `klt` for the layer that the LM head reads."""
ANY_LAYER: Target = ("rel", 0.09)
"""Default requirement of `klt` for other layers, and where no teacher measures KL divergence."""
BITS_OF_EXACT = 16
"""Bits per value of the exact codec."""
_RATE = {"kl": (0.01, 2.4, 0.5), "rel": (0.09, 2.6, 1.0)}
"""For the last layer of Qwen2.5-0.5B: a target, its bits per value, bits saved per doubling."""


@dataclass(frozen=True)
class CodecRequirement:
    """The codec of one layer, and what it must reach.

    Attributes:
        name: of the codec.
        measure, target: upper limit for `klt`: KL divergence in nats per token, relative error, or
            bits per value.
        calibration_tokens, seed: of the sample that the codec is fitted to.
    """

    name: str
    measure: Measure | None = None
    target: float = 0.0
    calibration_tokens: int = 0
    seed: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the requirement as the fit and the cache's identity record it."""
        if self.name == EXACT:
            return {}
        target = {} if self.measure is None else {"asked": f"{self.measure}={self.target:g}"}
        return {
            **target,
            "calibration_tokens": self.calibration_tokens,
            "calibration_seed": self.seed,
        }

    @property
    def identity(self) -> Any:
        """The codec's identity (`cache.codecs.fit_file.identity_of`) without its fit."""
        return EXACT if self.name == EXACT else {"name": self.name, **self.as_json()}

    @property
    def expected_bits(self) -> float:
        """Estimated bits per value before the codec is fitted."""
        if self.measure is None or self.measure == "bits":
            return self.target or 16.0
        usual, bits, slope = _RATE[self.measure]
        return max(0.2, bits - slope * math.log2(self.target / usual))


def codec_requirements(
    layers: Sequence[int],
    last_layer: int | None,
    options: CodecOptions,
    default_of_last: Target = LAST_LAYER,
) -> dict[int, CodecRequirement]:
    """Return the codec requirement of each layer.

    Args:
        layers: the stored layers.
        last_layer: the stored layer that the LM head reads; None if there is none, or no teacher.
        options: as on the command line.
        default_of_last: requirement of `klt` for the last layer if the options name none.

    Raises:
        InputError: as `require_codec_options`, or a KL divergence for another layer than the last.
    """
    names, targets = _parsed(layers, options)
    for layer, (measure, _) in targets.items():
        if measure == "kl" and layer != last_layer:
            text = by_layer("--fidelity", options.fidelity, layers)[layer]
            last = (
                "" if last_layer is None else f"restrict it to --fidelity {last_layer}:{text}, or "
            )
            raise InputError(
                f"--fidelity {text}: a KL divergence is measured with the LM head, which does not"
                f" read layer {layer}; {last}use rel=…"
            )
    tokens, seed = options.calibration_tokens, options.calibration_seed
    requirements = {}
    for layer, name in names.items():
        if name == EXACT:
            requirements[layer] = CodecRequirement(name)
        elif name == "klt":
            default = default_of_last if layer == last_layer else ANY_LAYER
            measure, value = targets.get(layer, default)
            requirements[layer] = CodecRequirement(name, measure, value, tokens, seed)
        else:
            requirements[layer] = CodecRequirement(name, None, 0.0, tokens, seed)
    return requirements


def require_codec_options(layers: Sequence[int], options: CodecOptions) -> None:
    """Check the codec options as far as possible without a teacher.

    Raises:
        InputError: an unknown codec or fidelity, a layer that is not stored, or a requirement that
            does not apply to its codec.
    """
    _parsed(layers, options)


def by_layer(option: str, values: Sequence[str], layers: Sequence[int]) -> dict[int, str]:
    """Return an option's value for each layer; `LAYER:VALUE` overrides `VALUE`.

    Raises:
        InputError: a layer that is not stored, or two values for one layer.
    """
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
            layer = int(name)
            if layer in of_one:
                raise InputError(
                    f"{option}: given twice for layer {layer} ({of_one[layer]}, {rest.strip()});"
                    " leave one out"
                )
            of_one[layer] = rest.strip()
    return (dict.fromkeys(layers, of_all[0]) if of_all else {}) | of_one


def _parsed(
    layers: Sequence[int], options: CodecOptions
) -> tuple[dict[int, str], dict[int, Target]]:
    """Return each layer's codec, and the requirements that the options name."""
    names = dict.fromkeys(layers, EXACT) | by_layer("--codec", options.codec, layers)
    for name in names.values():
        if name not in CODEC_NAMES:
            raise InputError(
                f"--codec {name}: no such codec; choose {', '.join(CODEC_NAMES)}, or LAYER:CODEC"
                " for one layer"
            )
    _require_klt("--fidelity", options.fidelity, names)
    _require_klt("--bits", options.bits, names)
    fitted = [layer for layer in layers if names[layer] == "klt"]
    targets = {
        layer: _fidelity(text)
        for layer, text in by_layer("--fidelity", options.fidelity, layers).items()
        if layer in fitted
    }
    for layer, text in by_layer("--bits", options.bits, layers).items():
        if layer in targets:
            raise InputError(
                f"layer {layer}: --fidelity and --bits exclude each other; leave one out"
            )
        targets[layer] = "bits", _bits(text)
    return names, targets


def _require_klt(option: str, values: Sequence[str], names: Mapping[int, str]) -> None:
    """Raise if an option names a layer whose codec is not `klt`, or if no layer's is."""
    if not values:
        return
    layers = list(names)
    named = [
        layer for value in values if ":" in value for layer in by_layer(option, [value], layers)
    ]
    others = [layer for layer in named if names[layer] != "klt"]
    if not others and "klt" not in names.values():
        others = layers
    if others:
        raise InputError(
            f"layer {others[0]}: {option} is for --codec klt; {names[others[0]]} has a fixed rate;"
            f" omit {option}"
        )


def _fidelity(text: str) -> Target:
    if text in PRESETS:
        return PRESETS[text]
    measure, _, value = text.partition("=")
    if measure == "kl":
        return "kl", _positive("--fidelity", value)
    if measure != "rel":
        raise InputError(
            f"--fidelity {text}: write kl=0.01, rel=0.09, or one of {', '.join(PRESETS)}"
        )
    error = _positive("--fidelity", value)
    if error >= 1:
        raise InputError(
            f"--fidelity {text}: an error as large as the states themselves; choose less than 1"
        )
    return "rel", error


def _bits(text: str) -> float:
    value = _positive("--bits", text)
    if value >= BITS_OF_EXACT:
        raise InputError(f"--bits {text}: {EXACT} takes {BITS_OF_EXACT} and is exact; choose fewer")
    return value


def _positive(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e6:
        raise InputError(f"{option}: {text!r} is not a number above 0")
    return value
