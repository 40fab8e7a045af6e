"""The codecs side by side on a cache's own data: what each takes, and what it loses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch

from cache import Cache, CacheError, open_cache
from cache.codecs import EXACT
from cache.codecs.int8 import Int8
from cache.codecs.klt import Klt
from cache.storage import LocationLike
from pipeline.codec_fit.fit import fit_codec, usual_step
from pipeline.codec_fit.measures import (
    Divergence,
    divergence_of,
    eigenvalues,
    gaussian_bound,
    relative_error,
    squared_error,
    stored_bits,
)
from pipeline.codec_fit.peers import fp8_per_token, int4_in_groups, int8_per_token
from pipeline.codec_fit.requirements import PRESETS, CodecRequirement
from pipeline.codec_fit.sample import choose_sample, own_lengths, segments_of, split_sample
from pipeline.data.tokenized_dataset import TokenizedExample
from pipeline.device import choose_device
from pipeline.errors import InputError
from pipeline.extract.padded_batch import read_batch
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.teacher.model import Teacher
from pipeline.teacher.verified_load import lm_head_layer, load_verified_teacher
from pipeline.upkeep.recorded_settings import recorded

_STEPS = tuple(2 ** (power / 2) for power in range(-4, 6))
"""Steps of the `klt` curve, in those that give a relative error of about a tenth."""
_TOKENS_A_CHANNEL = 10
"""With fewer measured tokens for each channel the bound comes out noticeably too low."""
_OTHERS = 5
"""Codecs that are compared with `klt`."""


@dataclass(frozen=True, kw_only=True)
class FidelitySettings:
    """What is to be compared; each field is the option of that name.

    Attributes:
        layer: of the cache; None: all of them.
        tokens: to measure on; of other examples than the `calibration_tokens` that the codecs are
            fitted to.
        kl_tokens: those of them that the LM head is asked about.
        teacher: where it lies now; None: where it lay when the cache was made.
        kl: measure KL divergences, which takes the teacher.
    """

    cache: LocationLike
    layer: int | None = None
    tokens: int = 65536
    kl_tokens: int = 4096
    calibration_tokens: int = 32768
    seed: int = 0
    teacher: str | None = None
    device: str = "auto"
    kl: bool = True


@dataclass(frozen=True)
class Point:
    """One codec on one layer.

    Attributes:
        codec: its name; `setting` is what was asked of it.
        bits_per_value: all that it stores over all values.
        relative_error: length of the difference over length of the state, root mean square over the
            tokens.
        bound_bits: bits a value below which no code of a Gaussian source has its squared error;
            None where it has none.
        kl, kl_error: KL divergence of the teacher's predictions in nats a token, and its standard
            error; None if not measured.
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
        measured_examples, measured_tokens, kl_tokens: what the figures are of.
        calibration_examples, calibration_tokens: what the codecs were fitted to: none of the
            measured examples.
        bound_is_low: too few tokens were measured to tell their spectrum: that of a sample is less
            even than the whole's.
        unmet: presets that no step of `klt` gives here.
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


def compare(settings: FidelitySettings, progress: Progress = NO_PROGRESS) -> list[LayerFidelity]:
    """Code a sample of a cache's states with each codec and measure what is lost.

    Layers that are not stored exactly are read again with the teacher; then the cache's own codec
    is measured as it stands.

    Raises:
        CacheError: it is not a whole cache, or has too few examples to keep calibration and
            measurement apart.
        InputError: no such layer, or the teacher is needed and not to be had.
    """
    with open_cache(settings.cache) as cache:
        layers = cache.layers if settings.layer is None else (settings.layer,)
        if unknown := set(layers) - set(cache.layers):
            raise InputError(
                f"--layer {min(unknown)}: the cache holds layers"
                f" {', '.join(map(str, cache.layers))}"
            )
        if (different := sum(own > 0 for own in own_lengths(cache))) < 2:
            raise CacheError(
                f"{cache.address}: has {different} examples with text of their own; at least 2 are"
                " needed, to measure apart from calibration"
            )
        teacher = None
        name = (
            settings.teacher or recorded(cache.manifest, "teacher")
            if settings.kl
            else settings.teacher
        )
        with_head = bool(
            settings.kl and name and lm_head_layer(name, layers, cache.identity) is not None
        )
        if with_head or any(cache.codecs[layer].name != EXACT for layer in layers):
            progress.stage("loading the teacher")
            name, device = (
                name or recorded(cache.manifest, "teacher"),
                choose_device(settings.device),
            )
            teacher = load_verified_teacher(
                name, list(layers), cache.identity, device, with_lm_head=with_head
            )
        return [_compare_layer(cache, layer, settings, teacher, progress) for layer in layers]


def _compare_layer(
    cache: Cache,
    layer: int,
    settings: FidelitySettings,
    teacher: Teacher | None,
    progress: Progress,
) -> LayerFidelity:
    own = {index: length for index, length in enumerate(own_lengths(cache)) if length}
    indices = [*own]
    sample = choose_sample(
        [*own.values()], min(settings.calibration_tokens, sum(own.values()) // 2), settings.seed
    )
    calibration = [indices[i] for i in sample]
    rest = sorted(own.keys() - set(calibration)) or calibration[-1:]
    calibration = [index for index in calibration if index not in set(rest)]
    measured = [
        rest[i]
        for i in choose_sample([own[index] for index in rest], settings.tokens, settings.seed + 1)
    ]
    progress.stage(f"layer {layer}: reading")
    shared, own_states = _exact_segments(cache, calibration, layer, teacher)
    fitted_to = [*shared, *own_states]
    _, segments = _exact_segments(
        cache, measured, layer, teacher
    )  # what they share has been seen in calibration
    states_ND = np.concatenate(segments)
    divergence = (
        divergence_of(teacher)
        if teacher is not None and teacher.has_lm_head and teacher.is_last(layer)
        else None
    )
    rng = np.random.default_rng(settings.seed)
    rows = np.sort(
        rng.choice(len(states_ND), min(settings.kl_tokens, len(states_ND)), replace=False)
    )
    spectrum_D = eigenvalues(states_ND)
    points, compared, unmet = [], [], list[str]()
    coded = _coded(fitted_to, states_ND, list(map(len, segments)), divergence, unmet)
    total = _OTHERS + len(_STEPS) + (len(PRESETS) if divergence is not None else 0)
    if cache.codecs[layer].name != EXACT:
        coded, total = _and_as_stored(coded, cache, layer, measured), total + 1
    progress.stage(f"layer {layer}: codecs", total)
    for codec, setting, decoded_ND, bits in coded:
        error = squared_error(states_ND, decoded_ND)
        bound = gaussian_bound(spectrum_D, error) if error else None
        points.append(
            Point(codec, setting, round(bits, 4), relative_error(states_ND, decoded_ND), bound)
        )
        compared.append(decoded_ND[rows])
        progress.advance()
    if divergence is not None:
        progress.stage(f"layer {layer}: KL divergence")
        found = divergence(states_ND[rows], compared)
        points = [
            replace(point, kl=kl.mean, kl_error=kl.error)
            for point, kl in zip(points, found, strict=True)
        ]
    return LayerFidelity(
        layer=layer,
        stored_as=cache.codecs[layer].name,
        measured_examples=len(measured),
        measured_tokens=len(states_ND),
        kl_tokens=len(rows) if divergence is not None else 0,
        calibration_examples=len(calibration),
        calibration_tokens=sum(map(len, fitted_to)),
        bound_is_low=len(states_ND) < _TOKENS_A_CHANNEL * cache.hidden_size,
        unmet=unmet,
        points=points,
    )


def _coded(
    fitted_to: Sequence[npt.NDArray[Any]],
    states_ND: npt.NDArray[Any],
    lengths: Sequence[int],
    divergence: Divergence | None,
    unmet: list[str],
) -> Iterator[tuple[str, str, npt.NDArray[Any], float]]:
    """Each codec's name and setting, the states that it gives back, and its bits a value."""
    calibration_ND = np.concatenate(fitted_to)
    yield "bf16", "exact", states_ND, 16.0
    int8 = Int8.fit(calibration_ND, {})
    coded = int8.encode(states_ND)
    yield (
        "int8",
        "token and channel scales",
        int8.decode(coded),
        stored_bits("int8", coded, lengths),
    )
    yield "int8", "a scale a token", *int8_per_token(states_ND)
    yield "fp8 e4m3", "a scale a token", *fp8_per_token(states_ND)
    yield (
        "int4",
        "groups of 32, channel scales",
        *int4_in_groups(states_ND, int8.parameters["channel_scales"]),
    )
    klt, usual = Klt.fit(calibration_ND, {}), usual_step(calibration_ND)
    steps = [(f"step {usual * factor:.3g}", usual * factor) for factor in _STEPS]
    if divergence is not None:
        for name, (measure, target) in PRESETS.items():
            setting = f"{name}: {measure}={target:g}"
            try:
                fitted = fit_codec(
                    CodecRequirement("klt", measure, target), split_sample(fitted_to), divergence
                )
            except InputError:  # no step gives that here: the others can be compared all the same
                unmet.append(setting)
            else:
                steps.append((setting, float(fitted.parameters["step"][0])))
    for setting, step in sorted(steps, key=lambda each: each[1]):
        stepped = klt.with_step(step, calibration_ND[:4096])
        coded = stepped.encode(states_ND)
        yield "klt", setting, stepped.decode(coded), stored_bits("klt", coded, lengths)


def _and_as_stored(
    coded: Iterator[tuple[str, str, npt.NDArray[Any], float]],
    cache: Cache,
    layer: int,
    measured: Sequence[int],
) -> Iterator[tuple[str, str, npt.NDArray[Any], float]]:
    yield from coded
    _, stored = segments_of(cache, measured, layer)
    yield (
        cache.codecs[layer].name,
        "as this cache stores it",
        np.concatenate(stored),
        cache.bits_per_value[layer],
    )


def _exact_segments(
    cache: Cache, indices: Sequence[int], layer: int, teacher: Teacher | None
) -> tuple[list[npt.NDArray[Any]], list[npt.NDArray[Any]]]:
    """Exact states of some examples, as from `segments_of`; from the teacher, where the cache has
    lost something."""
    if cache.codecs[layer].name == EXACT:
        return segments_of(cache, indices, layer)
    assert teacher is not None

    def live(index: int) -> npt.NDArray[Any]:
        example = cache.coded_example(index, ())
        (states,) = read_batch(
            teacher, [TokenizedExample(example.row_id, example.input_ids, example.loss_mask)]
        )
        bits_TD: npt.NDArray[Any] = states[layer].contiguous().view(torch.uint16).numpy()
        return bits_TD.view(ml_dtypes.bfloat16)

    return segments_of(cache, indices, layer, live)
