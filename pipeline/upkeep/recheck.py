"""Compare a sample of the cached hidden states with the live teacher.

The reference is a plain call of transformers, one example at a time. It shares only the loading of
weights with the extract: no hooks, no left-out blocks, no positions, padding or key-value cache.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cache import CacheError, open_cache
from cache.codecs import Codec
from cache.storage import LocationLike
from pipeline.device import choose_device
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.teacher.verified_load import load_verified_base_model
from pipeline.upkeep.recorded_settings import recorded_location
from pipeline.upkeep.settings import RecheckSettings

TOLERANCE = {"fp32": 0.01, "bf16": 0.05}
"""Largest relative error of states that are the teacher's, by compute dtype.

Rounding to bfloat16 costs up to 0.4 %, a pass in bfloat16 differs by about 1 % between machines;
states of other tokens or weights differ by tens of per cent.
"""
_CODEC_MARGIN = 2.0
"""The worst example may exceed the codec's mean relative error by this factor."""
_NOT_FINITE = 1e30
"""Stands for a difference that is not finite; JSON has no NaN."""


@dataclass(frozen=True)
class LayerError:
    """The difference between a layer's stored and live states.

    Attributes:
        relative_error: length of the difference over length of the live state, per token (some
            tokens of middle layers are hundreds of times as long as all others, and would hide
            them); root mean square over all sampled tokens.
        largest_difference: of any single value.
        worst_relative_error: of the example where it is largest.
        worst_example, worst_row_id: index and row id of that example.
        tolerance: limit for the worst example: that of the compute dtype, plus twice the codec's
            relative error.
    """

    layer: int
    relative_error: float
    largest_difference: float
    worst_relative_error: float
    worst_example: int
    worst_row_id: str
    tolerance: float
    within_tolerance: bool


@dataclass(frozen=True)
class Recheck:
    """The comparison of a sample of a cache with the live teacher."""

    examples: int
    tokens: int
    compute_dtype: str
    tolerance: float
    layers: list[LayerError]


def recheck(
    where: LocationLike, settings: RecheckSettings, progress: Progress = NO_PROGRESS
) -> Recheck:
    """Run the live teacher over a random sample of a cache's examples, and compare.

    Args:
        where: location of a complete cache.
        settings: the sample, and the teacher's device and location.
        progress: counts the examples.

    Raises:
        CacheError: the cache is incomplete or empty.
        InputError: the teacher is missing, or another one.
    """
    with open_cache(where) as cache:
        if not len(cache):
            raise CacheError(f"{cache.address}: has no examples to compare")
        teacher = settings.teacher or recorded_location(cache.manifest, "teacher")
        size = min(settings.sample, len(cache))
        chosen = random.Random(settings.seed).sample(range(len(cache)), size)
        live = load_verified_base_model(teacher, cache.identity, choose_device(settings.device))
        differences: dict[int, list[_Difference]] = {layer: [] for layer in cache.layers}
        tokens = 0
        # Shortest first: dynamic rotary embeddings keep the frequencies of the longest text so far.
        progress.stage("compare", len(chosen))
        for index in sorted(chosen, key=lambda index: int(cache.lengths[index])):
            example = cache[index]
            states = _plain_states(live, example.input_ids, cache.layers)
            for layer, stored in example.hidden_states.items():
                differences[layer].append(_difference(index, stored, states[layer]))
            tokens += len(example)
            progress.advance()
        dtype = cache.identity["compute_dtype"]
        row_ids = cache.row_ids
        tolerances = {
            layer: TOLERANCE[dtype] + _CODEC_MARGIN * _codec_error(codec)
            for layer, codec in cache.codecs.items()
        }
    return Recheck(
        examples=len(chosen),
        tokens=tokens,
        compute_dtype=dtype,
        tolerance=TOLERANCE[dtype],
        layers=[
            _layer_error(layer, of_layer, row_ids, tolerances[layer])
            for layer, of_layer in differences.items()
        ],
    )


@torch.inference_mode()
def _plain_states(
    body: Any, input_ids: npt.NDArray[np.int32], layers: Sequence[int]
) -> dict[int, torch.Tensor]:
    """Return the states `[T, d_teacher]` of some layers, the last one after the final norm."""
    ids_1T = torch.from_numpy(input_ids.astype(np.int64))[None].to(body.device)
    output = body(input_ids=ids_1T, output_hidden_states=True)
    states = list(output.hidden_states)
    if getattr(output, "last_hidden_state", None) is not None:
        states[-1] = output.last_hidden_state
    return {layer: states[layer][0].to("cpu", torch.bfloat16) for layer in layers}


@dataclass(frozen=True)
class _Difference:
    """The difference of one example: its largest value, and squared relative errors `[T]`."""

    index: int
    largest: float
    squares: npt.NDArray[np.float64]

    @property
    def relative_error(self) -> float:
        """The root mean square over the tokens."""
        return float(np.sqrt(self.squares.mean()))


def _difference(index: int, stored_TD: npt.NDArray[Any], live_TD: torch.Tensor) -> _Difference:
    live = live_TD.to(torch.float64).numpy()
    difference = stored_TD.astype(np.float64) - live
    squared_lengths = np.maximum((live**2).sum(axis=1), np.finfo(np.float64).tiny)
    squares_T = (difference**2).sum(axis=1) / squared_lengths
    return _Difference(
        index,
        float(_finite(np.abs(difference)).max()),
        _finite(squares_T),
    )


def _finite(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.nan_to_num(values, nan=_NOT_FINITE, posinf=_NOT_FINITE)


def _layer_error(
    layer: int, differences: Sequence[_Difference], row_ids: Sequence[str], tolerance: float
) -> LayerError:
    worst = max(differences, key=lambda difference: difference.relative_error)
    squares = np.concatenate([difference.squares for difference in differences])
    return LayerError(
        layer=layer,
        relative_error=float(np.sqrt(squares.mean())),
        largest_difference=max(difference.largest for difference in differences),
        worst_relative_error=worst.relative_error,
        worst_example=worst.index,
        worst_row_id=row_ids[worst.index],
        tolerance=tolerance,
        within_tolerance=worst.relative_error <= tolerance,
    )


def _codec_error(codec: Codec) -> float:
    """Return a codec's relative error on the calibration tokens; 0 if it is exact."""
    return float(codec.settings.get("found", {}).get("relative_error", 0.0))
