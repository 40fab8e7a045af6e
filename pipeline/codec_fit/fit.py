"""A codec fitted to a sample of the data itself, and the step that gives what was asked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.codecs import EXACT, Codec
from cache.codecs.bf16 import Bf16
from cache.codecs.int8 import Int8
from cache.codecs.klt import Klt
from pipeline.codec_fit.measures import (
    Divergence,
    eigenvalues,
    gaussian_bound,
    relative_error,
    squared_error,
    stored_bits,
)
from pipeline.codec_fit.requirements import BITS_OF_EXACT, CodecRequirement
from pipeline.codec_fit.sample import Sample
from pipeline.errors import InputError

_KL_TOKENS = 2048
_MOST_STEPS = 24
_FARTHEST = 3.0
_SLOPE = {"kl": 2.0, "rel": 1.0, "bits": -1 / math.log(2)}
"""How a measure (its logarithm, for the first two) usually changes with the logarithm of the
step."""
_CLOSE = {"kl": 0.97, "rel": 0.99, "bits": 0.99}
"""A step is taken that gives between this share of what is allowed, and all of it."""


def fit_codec(asked: CodecRequirement, sample: Sample, divergence: Divergence | None) -> Codec:
    """Fit a layer's codec.

    Args:
        asked: what is asked of it.
        sample: states of that layer.
        divergence: measures a KL divergence; None for layers that the LM head does not read, or
            where there is none.

    Raises:
        InputError: no step gives what is asked.
    """
    if asked.name == EXACT:
        return Bf16()
    spectrum_D = eigenvalues(sample.held_back)
    settings: dict[str, Any] = {"asked": asked.as_json()}
    if asked.name == "int8":
        fitted: Codec = Int8.fit(sample.fitted_to, settings)
        return replace(
            fitted,
            settings=settings | {"found": measure_codec(fitted, sample, spectrum_D, divergence)},
        )  # type: ignore[type-var]
    klt = Klt.fit(sample.fitted_to, settings)
    tried: list[dict[str, float]] = []

    def measured(step: float) -> float:
        """Nats, relative error or bits of a step, on states that the fit has not seen."""
        found = measure_codec(klt.with_step(step, sample.held_back), sample, spectrum_D, divergence)
        if all(
            map(math.isfinite, found.values())
        ):  # a step so fine that all is kept exactly has no bound
            tried.append({"step": step, **found})
        if asked.measure == "kl":
            return found["kl"] + found["kl_error"]
        return found["relative_error"] if asked.measure == "rel" else found["bits_per_value"]

    step = _find_step(measured, asked, start=usual_step(sample.held_back))
    found = next((each for each in reversed(tried) if each["step"] == step), None)
    if found is None or found["bits_per_value"] >= BITS_OF_EXACT:
        raise InputError(
            f"--codec klt: {asked.measure}={asked.target:g} takes {BITS_OF_EXACT} bits a value or"
            f" more, as many as {EXACT}, which is exact; use --codec {EXACT}, or ask for"
            f" {'fewer bits' if asked.measure == 'bits' else 'something larger'}"
        )
    curve = sorted(tried, key=lambda each: each["step"])
    return replace(
        klt.with_step(step, sample.held_back), settings=settings | {"found": found, "tried": curve}
    )


def measure_codec(
    codec: Codec, sample: Sample, spectrum_D: npt.NDArray[np.float64], divergence: Divergence | None
) -> dict[str, float]:
    """What a codec does on the states that it was not fitted to."""
    coded = codec.encode(sample.held_back)
    stored_ND = codec.decode(coded)
    found = {
        "bits_per_value": stored_bits(codec.name, coded, sample.held_lengths),
        "relative_error": relative_error(sample.held_back, stored_ND),
        "bound_bits": gaussian_bound(spectrum_D, squared_error(sample.held_back, stored_ND)),
        "tokens": len(sample.held_back),
    }
    if divergence is not None:
        rows = np.linspace(0, len(stored_ND) - 1, min(_KL_TOKENS, len(stored_ND))).astype(np.int64)
        (kl,) = divergence(sample.held_back[rows], [stored_ND[rows]])
        found |= {"kl": kl.mean, "kl_error": kl.error, "kl_tokens": len(rows)}
    return {name: float(f"{value:.6g}") for name, value in found.items()}


def usual_step(hidden_ND: npt.NDArray[Any]) -> float:
    """A step that gives a relative error of about a tenth."""
    lengths_N = np.sqrt((hidden_ND.astype(np.float64) ** 2).sum(axis=1))
    return float(0.1 * np.median(lengths_N) * math.sqrt(12 / hidden_ND.shape[1])) or 1.0


def _find_step(measured: Callable[[float], float], asked: CodecRequirement, start: float) -> float:
    """The step that comes up to what is asked: the coarsest allowed, or for bits the finest.

    KL divergence and relative error are nearly powers of the step, bits nearly a multiple of its
    logarithm: a straight line through the last two finds it soon; where it would leave the interval
    that is known to hold the step, that is halved."""
    assert asked.measure is not None
    slope = _SLOPE[asked.measure]
    goal = asked.target * (1 + _CLOSE[asked.measure]) / 2
    low, high = -math.inf, math.inf  # logarithms of steps known to be too fine, and too coarse
    place, before = math.log(start), None
    for _ in range(_MOST_STEPS):
        value = measured(math.exp(place))
        if _CLOSE[asked.measure] * asked.target <= value <= asked.target:
            return math.exp(place)
        if (value > asked.target) == (slope > 0):
            high = place
        else:
            low = place
        off = value - goal if asked.measure == "bits" else math.log(max(value, 1e-12) / goal)
        if (
            before is not None
            and before[0] != place
            and (off - before[1]) / (place - before[0]) * slope > 0
        ):
            slope = (off - before[1]) / (place - before[0])
        before = place, off
        place -= max(-_FARTHEST, min(_FARTHEST, off / slope))
        if not low < place < high:
            place = (
                (low + high) / 2
                if low > -math.inf and high < math.inf
                else before[0] + math.copysign(1, high - before[0])
            )
        if high - low < 1e-6:
            break
    if (
        low > -math.inf and high < math.inf
    ):  # what is measured leaps over what is asked: stay below it
        return math.exp(low if slope > 0 else high)
    found, way = ("more", "larger") if value > asked.target else ("less", "smaller")
    raise InputError(
        f"--codec klt: every step gives {found} than {asked.measure}={asked.target:g} on the"
        f" calibration tokens (the last one {value:.3g}); ask for something {way}"
    )
