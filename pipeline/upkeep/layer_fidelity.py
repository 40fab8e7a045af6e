"""The result of comparing codecs on a cache: bit rate and distortion of each codec, per layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """One codec with one setting on one layer.

    Attributes:
        codec: its name.
        setting: step size, codec requirement or scales, in words.
        bits_per_value: all stored bits over the number of values.
        relative_error: length of the difference over length of the state, root mean square over the
            tokens.
        bound_bits: lower bound on the bits per value of any code of a Gaussian source with the same
            squared error; None if the error is 0.
        kl: KL divergence of the teacher's predictions in nats per token; None if not measured.
        kl_error: standard error of `kl`.
    """

    codec: str
    setting: str
    bits_per_value: float
    relative_error: float
    bound_bits: float | None
    kl: float | None = None
    kl_error: float | None = None


@dataclass(frozen=True)
class LayerFidelity:
    """All codecs on one layer.

    Attributes:
        stored_as: the cache's own codec of this layer.
        measured_examples, measured_tokens: size of the sample that the codecs are measured on.
        kl_tokens: tokens of that sample whose KL divergence is measured.
        calibration_examples, calibration_tokens: size of the sample that the codecs are fitted to;
            no example is in both.
        bound_is_low: too few tokens were measured for a reliable spectrum, so `bound_bits` is
            underestimated.
        unmet: presets that no step size of `klt` reaches here.
    """

    layer: int
    stored_as: str
    measured_examples: int
    measured_tokens: int
    kl_tokens: int
    calibration_examples: int
    calibration_tokens: int
    bound_is_low: bool
    unmet: list[str]
    points: list[Point]
