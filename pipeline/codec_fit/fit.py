"""Fitting a codec to a sample of the data, and the search for the step that meets a requirement."""

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
_LARGEST_MOVE = 3.0
"""Largest change of the step's logarithm in one iteration."""
_SLOPE = {"kl": 2.0, "rel": 1.0, "bits": -1 / math.log(2)}
"""Typical change per unit of the step's logarithm: of bits, or of the other measures' logarithm."""
_CLOSE = {"kl": 0.97, "rel": 0.99, "bits": 0.99}
"""A step is accepted if its measure is between this share of the target and the target."""


def fit_codec(
    requirement: CodecRequirement, sample: Sample, divergence: Divergence | None
) -> Codec:
    """Return a layer's codec, fitted to a sample.

    Args:
        requirement: of the layer.
        sample: states of the layer.
        divergence: measures KL divergences; None for layers that the LM head does not read, or
            without a teacher.

    Raises:
        InputError: no step meets the requirement.
    """
    if requirement.name == EXACT:
        return Bf16()
    spectrum_D = eigenvalues(sample.measured)
    settings: dict[str, Any] = {"asked": requirement.as_json()}
    if requirement.name == "int8":
        int8 = Int8.fit(sample.fitted, settings)
        distortion = measure_codec(int8, sample, spectrum_D, divergence)
        return replace(int8, settings=settings | {"found": distortion})
    klt = Klt.fit(sample.fitted, settings)
    tried: list[dict[str, float]] = []

    def measure(step: float) -> float:
        """Return the KL divergence, relative error or bits of a step, on unseen states."""
        stepped = klt.with_step(step, sample.measured)
        distortion = measure_codec(stepped, sample, spectrum_D, divergence)
        if all(map(math.isfinite, distortion.values())):  # a lossless step has no bound
            tried.append({"step": step, **distortion})
        if requirement.measure == "kl":
            return distortion["kl"] + distortion["kl_error"]
        return distortion["relative_error" if requirement.measure == "rel" else "bits_per_value"]

    step = _find_step(measure, requirement, start=usual_step(sample.measured))
    chosen = next((point for point in reversed(tried) if point["step"] == step), None)
    if chosen is None or chosen["bits_per_value"] >= BITS_OF_EXACT:
        raise InputError(
            f"--codec klt: {requirement.measure}={requirement.target:g} takes {BITS_OF_EXACT} bits"
            f" per value or more, as many as {EXACT}, which is exact; use --codec {EXACT}, or"
            f" choose a {'smaller' if requirement.measure == 'bits' else 'larger'} value"
        )
    curve = sorted(tried, key=lambda point: point["step"])
    fitted = klt.with_step(step, sample.measured)
    return replace(fitted, settings=settings | {"found": chosen, "tried": curve})


def measure_codec(
    codec: Codec, sample: Sample, spectrum_D: npt.NDArray[np.float64], divergence: Divergence | None
) -> dict[str, float]:
    """Return a codec's rate and distortion on the states that it was not fitted to."""
    exact_ND = sample.measured
    coded = codec.encode(exact_ND)
    stored_ND = codec.decode(coded)
    distortion = {
        "bits_per_value": stored_bits(codec.name, coded, sample.measured_lengths),
        "relative_error": relative_error(exact_ND, stored_ND),
        "bound_bits": gaussian_bound(spectrum_D, squared_error(exact_ND, stored_ND)),
        "tokens": len(exact_ND),
    }
    if divergence is not None:
        rows = np.linspace(0, len(stored_ND) - 1, min(_KL_TOKENS, len(stored_ND))).astype(np.int64)
        (kl,) = divergence(exact_ND[rows], [stored_ND[rows]])
        distortion |= {"kl": kl.mean, "kl_error": kl.error, "kl_tokens": len(rows)}
    return {name: float(f"{value:.6g}") for name, value in distortion.items()}


def usual_step(hidden_ND: npt.NDArray[Any]) -> float:
    """Return a step with a relative error of about 0.1."""
    lengths_N = np.sqrt((hidden_ND.astype(np.float64) ** 2).sum(axis=1))
    return float(0.1 * np.median(lengths_N) * math.sqrt(12 / hidden_ND.shape[1])) or 1.0


def _find_step(
    measure: Callable[[float], float], requirement: CodecRequirement, start: float
) -> float:
    """Return the coarsest step that meets the requirement; for bits the finest.

    The logarithms of KL divergence and relative error, and the bits themselves, are nearly linear
    in the logarithm of the step. The search is a secant method; where it would leave the interval
    known to contain the step, it bisects.
    """
    assert requirement.measure is not None
    kind, target = requirement.measure, requirement.target
    slope, goal = _SLOPE[kind], target * (1 + _CLOSE[kind]) / 2
    low, high = -math.inf, math.inf  # logarithms of steps that are too fine and too coarse
    log_step, before = math.log(start), None
    for _ in range(_MOST_STEPS):
        value = measure(math.exp(log_step))
        if _CLOSE[kind] * target <= value <= target:
            return math.exp(log_step)
        if (value > target) == (slope > 0):
            high = log_step
        else:
            low = log_step
        off = value - goal if kind == "bits" else math.log(max(value, 1e-12) / goal)
        if before is not None and before[0] != log_step:
            secant = (off - before[1]) / (log_step - before[0])
            if secant * slope > 0:
                slope = secant
        before = log_step, off
        log_step -= max(-_LARGEST_MOVE, min(_LARGEST_MOVE, off / slope))
        if not low < log_step < high:
            bracketed = low > -math.inf and high < math.inf
            outside = before[0] + math.copysign(1, high - before[0])
            log_step = (low + high) / 2 if bracketed else outside
        if high - low < 1e-6:
            break
    if low > -math.inf and high < math.inf:  # the measure jumps over the target: stay below it
        return math.exp(low if slope > 0 else high)
    relation, change = ("more", "larger") if value > target else ("less", "smaller")
    raise InputError(
        f"--codec klt: every step gives {relation} than {kind}={target:g} on the calibration tokens"
        f" (the last one {value:.3g}); choose a {change} value"
    )
