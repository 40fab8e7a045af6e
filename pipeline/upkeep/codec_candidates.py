"""The codecs that are compared on a layer, with the states they decode to and their bit rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache import Cache
from cache.codecs import EXACT
from cache.codecs.int8 import Int8
from cache.codecs.klt import Klt
from pipeline.codec_fit.fit import fit_codec, usual_step
from pipeline.codec_fit.measures import Divergence, stored_bits
from pipeline.codec_fit.peers import fp8_per_token, int4_in_groups, int8_per_token
from pipeline.codec_fit.requirements import PRESETS, CodecRequirement
from pipeline.codec_fit.sample import segments_of, split_sample
from pipeline.errors import InputError

_STEP_FACTORS = tuple(2 ** (power / 2) for power in range(-4, 6))
"""Step sizes of the `klt` curve, relative to the one with a relative error of about 0.1."""
_OTHER_CODECS = 5
"""Candidates other than `klt`."""


@dataclass(frozen=True)
class Candidate:
    """A codec with a setting, the states `[N, d_teacher]` it decodes to, and its bit rate."""

    codec: str
    setting: str
    decoded: npt.NDArray[Any]
    bits_per_value: float


class CodecCandidates:
    """All codecs to compare on the measured states of one layer.

    Attributes:
        unmet: presets that no step size of `klt` reaches.
    """

    def __init__(
        self,
        calibration: Sequence[npt.NDArray[Any]],
        measured: Sequence[npt.NDArray[Any]],
        divergence: Divergence | None,
    ) -> None:
        """Prepare the candidates.

        Args:
            calibration: segments `[T, d_teacher]` that the codecs are fitted to.
            measured: segments that they encode.
            divergence: measures the presets; without it they are left out.
        """
        self._calibration_ND = np.concatenate(calibration)
        self._states_ND = np.concatenate(measured)
        self._lengths = list(map(len, measured))
        self._presets, self.unmet = _preset_steps(calibration, divergence)

    def __len__(self) -> int:
        """Return the number of candidates."""
        return _OTHER_CODECS + len(_STEP_FACTORS) + len(self._presets)

    def __iter__(self) -> Iterator[Candidate]:
        """Encode and decode the states with one codec after the other."""
        states_ND = self._states_ND
        yield Candidate("bf16", "exact", states_ND, 16.0)
        int8 = Int8.fit(self._calibration_ND, {})
        coded = int8.encode(states_ND)
        bits = stored_bits("int8", coded, self._lengths)
        yield Candidate("int8", "token and channel scales", int8.decode(coded), bits)
        yield Candidate("int8", "token scales", *int8_per_token(states_ND))
        yield Candidate("fp8 e4m3", "token scales", *fp8_per_token(states_ND))
        int4 = int4_in_groups(states_ND, int8.parameters["channel_scales"])
        yield Candidate("int4", "groups of 32, channel scales", *int4)
        yield from self._klt()

    def _klt(self) -> Iterator[Candidate]:
        klt = Klt.fit(self._calibration_ND, {})
        for step, setting in sorted([*self._curve(), *self._presets]):
            stepped = klt.with_step(step, self._calibration_ND[:4096])
            coded = stepped.encode(self._states_ND)
            bits = stored_bits("klt", coded, self._lengths)
            yield Candidate("klt", setting, stepped.decode(coded), bits)

    def _curve(self) -> list[tuple[float, str]]:
        usual = usual_step(self._calibration_ND)
        return [(usual * factor, f"step {usual * factor:.3g}") for factor in _STEP_FACTORS]


def _preset_steps(
    calibration: Sequence[npt.NDArray[Any]], divergence: Divergence | None
) -> tuple[list[tuple[float, str]], list[str]]:
    """Return the step sizes of `klt` that reach the presets, and the presets that none reaches."""
    steps: list[tuple[float, str]] = []
    unmet: list[str] = []
    if divergence is None:
        return steps, unmet
    sample = split_sample(calibration)
    for name, (measure, target) in PRESETS.items():
        setting = f"{name}: {measure}={target:g}"
        try:
            codec = fit_codec(CodecRequirement("klt", measure, target), sample, divergence)
        except InputError:  # the other candidates can be compared
            unmet.append(setting)
        else:
            steps.append((float(codec.parameters["step"][0]), setting))
    return steps, unmet


def stored_candidate(cache: Cache, examples: Sequence[int], layer: int) -> Candidate | None:
    """Return the cache's own codec of a layer with the stored states; None if it is exact."""
    codec = cache.codecs[layer].name
    if codec == EXACT:
        return None
    _, segments = segments_of(cache, examples, layer)
    bits = cache.bits_per_value[layer]
    return Candidate(codec, "as stored in this cache", np.concatenate(segments), bits)
