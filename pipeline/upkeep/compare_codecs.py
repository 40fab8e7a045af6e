"""Compare codecs on a cache's own hidden states: bit rate and distortion of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from cache import Cache, CacheError, open_cache
from cache.codecs import EXACT
from pipeline.codec_fit.measures import (
    Divergence,
    divergence_of,
    eigenvalues,
    gaussian_bound,
    relative_error,
    squared_error,
)
from pipeline.codec_fit.sample import choose_sample, own_lengths
from pipeline.device import choose_device
from pipeline.errors import InputError
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.teacher.model import Teacher
from pipeline.teacher.verified_load import lm_head_layer, load_verified_teacher
from pipeline.upkeep.codec_candidates import Candidate, CodecCandidates, stored_candidate
from pipeline.upkeep.exact_states import exact_segments
from pipeline.upkeep.layer_fidelity import LayerFidelity, Point
from pipeline.upkeep.recorded_settings import recorded_location
from pipeline.upkeep.settings import FidelitySettings

_TOKENS_PER_CHANNEL = 10
"""With fewer measured tokens per channel the bound is noticeably too low."""


def compare(settings: FidelitySettings, progress: Progress = NO_PROGRESS) -> list[LayerFidelity]:
    """Encode a sample of a cache's states with each codec, and measure the distortion.

    The teacher computes layers that are not stored exactly; their own codec is then measured, too.

    Raises:
        CacheError: it is incomplete, or has too few examples to separate calibration and
            measurement.
        InputError: there is no such layer, or the teacher is needed and missing.
    """
    with open_cache(settings.cache) as cache:
        layers = cache.layers if settings.layer is None else (settings.layer,)
        if unknown := set(layers) - set(cache.layers):
            names = ", ".join(map(str, cache.layers))
            raise InputError(f"--layer {min(unknown)}: not in the cache; choose one of {names}")
        if (usable := sum(own > 0 for own in own_lengths(cache))) < 2:
            raise CacheError(
                f"{cache.address}: examples with text that is not shared: {usable}; calibration and"
                " measurement need at least 2"
            )
        teacher = _needed_teacher(cache, layers, settings, progress)
        return [_compare_layer(cache, layer, settings, teacher, progress) for layer in layers]


def _needed_teacher(
    cache: Cache, layers: Sequence[int], settings: FidelitySettings, progress: Progress
) -> Teacher | None:
    name = settings.teacher
    if name is None and settings.kl:
        name = recorded_location(cache.manifest, "teacher")
    with_lm_head = bool(
        settings.kl and name and lm_head_layer(name, layers, cache.identity) is not None
    )
    if not with_lm_head and all(cache.codecs[layer].name == EXACT for layer in layers):
        return None
    progress.stage("loading the teacher")
    return load_verified_teacher(
        name or recorded_location(cache.manifest, "teacher"),
        list(layers),
        cache.identity,
        choose_device(settings.device),
        with_lm_head=with_lm_head,
    )


def _compare_layer(
    cache: Cache,
    layer: int,
    settings: FidelitySettings,
    teacher: Teacher | None,
    progress: Progress,
) -> LayerFidelity:
    calibration, measured = _split_examples(cache, settings)
    progress.stage(f"layer {layer}: reading")
    shared, own = exact_segments(cache, calibration, layer, teacher)
    fit_segments = [*shared, *own]
    # Shared prefixes may be part of the calibration, so they are not measured.
    _, segments = exact_segments(cache, measured, layer, teacher)
    states_ND = np.concatenate(segments)
    reads_head = teacher is not None and teacher.has_lm_head and teacher.is_last(layer)
    divergence = divergence_of(teacher) if reads_head and teacher is not None else None
    kl_tokens = min(settings.kl_tokens, len(states_ND))
    rng = np.random.default_rng(settings.seed)
    kl_rows = np.sort(rng.choice(len(states_ND), kl_tokens, replace=False))
    candidates = CodecCandidates(fit_segments, segments, divergence)
    stored = stored_candidate(cache, measured, layer)
    progress.stage(f"layer {layer}: codecs", len(candidates))
    spectrum_D = eigenvalues(states_ND)
    points, decoded = [], []
    for candidate in chain(candidates, [stored] if stored else []):
        points.append(_point(candidate, states_ND, spectrum_D))
        decoded.append(candidate.decoded[kl_rows])
        progress.advance()
    if divergence is not None:
        progress.stage(f"layer {layer}: KL divergence")
        points = _with_divergences(points, divergence, states_ND[kl_rows], decoded)
    return LayerFidelity(
        layer=layer,
        stored_as=cache.codecs[layer].name,
        measured_examples=len(measured),
        measured_tokens=len(states_ND),
        kl_tokens=kl_tokens if divergence is not None else 0,
        calibration_examples=len(calibration),
        calibration_tokens=sum(map(len, fit_segments)),
        bound_is_low=len(states_ND) < _TOKENS_PER_CHANNEL * cache.hidden_size,
        unmet=candidates.unmet,
        points=points,
    )


def _split_examples(cache: Cache, settings: FidelitySettings) -> tuple[list[int], list[int]]:
    """Return the examples to calibrate on, and others to measure on."""
    own = {index: length for index, length in enumerate(own_lengths(cache)) if length}
    indices = [*own]
    tokens = min(settings.calibration_tokens, sum(own.values()) // 2)
    sample = choose_sample([*own.values()], tokens, settings.seed)
    calibration = [indices[i] for i in sample]
    rest = sorted(own.keys() - set(calibration))
    if not rest:  # the sample is the whole cache
        rest = [calibration.pop()]
    lengths = [own[index] for index in rest]
    chosen = choose_sample(lengths, settings.tokens, settings.seed + 1)
    return calibration, [rest[i] for i in chosen]


def _point(
    candidate: Candidate, states_ND: npt.NDArray[Any], spectrum_D: npt.NDArray[np.float64]
) -> Point:
    error = squared_error(states_ND, candidate.decoded)
    return Point(
        codec=candidate.codec,
        setting=candidate.setting,
        bits_per_value=round(candidate.bits_per_value, 4),
        relative_error=relative_error(states_ND, candidate.decoded),
        bound_bits=gaussian_bound(spectrum_D, error) if error else None,
    )


def _with_divergences(
    points: Sequence[Point],
    divergence: Divergence,
    exact_ND: npt.NDArray[Any],
    decoded: Sequence[npt.NDArray[Any]],
) -> list[Point]:
    return [
        replace(point, kl=kl.mean, kl_error=kl.error)
        for point, kl in zip(points, divergence(exact_ND, decoded), strict=True)
    ]
