"""Cached hidden states against the live teacher, on a sample: are they its, and how exactly?

The reference is a plain call of transformers, an example at a time. It shares nothing with what
made the cache but the loading of
weights: no hooks, no blocks left out, no positions, no padding, no key-value cache.
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
from pipeline.upkeep.recorded_settings import recorded

TOLERANCE = {"fp32": 0.01, "bf16": 0.05}
"""Relative error up to which stored states are the teacher's, by its compute dtype. Rounding to
bfloat16 costs up to 0.4 %, a whole pass in it 1 % or so from one machine to another; states of
other tokens or weights are off by tens of per cent."""

_EXAMPLES_DIFFER = 2.0
_FAR = 1e30


@dataclass(frozen=True)
class LayerError:
    """How far a layer's stored states are from the live ones.

    Attributes:
        relative_error: length of the difference over length of the live state, token by token (a
            few tokens of middle layers are hundreds of times as long as all others, and would hide
            them); root mean square over all sampled tokens.
        worst_example: the same of the example where it is largest, named by its index and row id.
        largest_difference: of any single value.
        tolerance: what is allowed for the worst example: of the compute type, and twice what the
            codec is known to lose.
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
    """A sample of a cache beside the live teacher."""

    examples: int
    tokens: int
    compute_dtype: str
    tolerance: float
    layers: list[LayerError]


def recheck(
    where: LocationLike,
    *,
    sample: int,
    teacher: str | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Progress = NO_PROGRESS,
) -> Recheck:
    """Run the live teacher over a random sample of a cache's examples and compare.

    Args:
        where: place of a whole cache.
        sample: how many examples.
        teacher: where it lies now; None: where it lay when the cache was made.
        device: where it computes; its type is the cache's.
        seed: of the sample.
        progress: counts the examples.

    Raises:
        CacheError: it is not a whole cache.
        InputError: the teacher is not there, or not the one that the cache was made with.
    """
    with open_cache(where) as cache:
        if not len(cache):
            raise CacheError(f"{cache.address}: has no examples to compare")
        teacher = teacher or recorded(cache.manifest, "teacher")
        chosen = random.Random(seed).sample(range(len(cache)), min(sample, len(cache)))
        live = load_verified_base_model(teacher, cache.identity, choose_device(device))
        errors: dict[int, list[tuple[int, float, npt.NDArray[np.float64]]]] = {
            layer: [] for layer in cache.layers
        }
        tokens = 0
        # Shorter ones first: dynamic rotary embeddings keep what the longest text so far has made
        # of them.
        progress.stage("compare", len(chosen))
        for index in sorted(chosen, key=lambda index: int(cache.lengths[index])):
            example = cache[index]
            states = _plain_states(live, example.input_ids, cache.layers)
            for layer, stored in example.hidden_states.items():
                errors[layer].append((index, *_difference(stored, states[layer])))
            tokens += len(example)
            progress.advance()
        dtype = cache.identity["compute_dtype"]
        row_ids = cache.row_ids
        allowed = {
            layer: _EXAMPLES_DIFFER * _coding_error(codec) for layer, codec in cache.codecs.items()
        }
    return Recheck(
        examples=len(chosen),
        tokens=tokens,
        compute_dtype=dtype,
        tolerance=TOLERANCE[dtype],
        layers=[
            _layer_error(layer, found, row_ids, TOLERANCE[dtype] + allowed[layer])
            for layer, found in errors.items()
        ],
    )


@torch.inference_mode()
def _plain_states(
    body: Any, input_ids: npt.NDArray[np.int32], layers: Sequence[int]
) -> dict[int, torch.Tensor]:
    """Hidden states `[T, d_teacher]` of some layers; the last one is the output after the final
    norm."""
    ids_1T = torch.from_numpy(input_ids.astype(np.int64))[None].to(body.device)
    output = body(input_ids=ids_1T, output_hidden_states=True)
    every = list(output.hidden_states)
    if getattr(output, "last_hidden_state", None) is not None:
        every[-1] = output.last_hidden_state
    return {layer: every[layer][0].to("cpu", torch.bfloat16) for layer in layers}


def _difference(
    stored_TD: npt.NDArray[Any], live_TD: torch.Tensor
) -> tuple[float, npt.NDArray[np.float64]]:
    """The largest difference of any value, and the squared relative error `[T]` of each token."""
    live = live_TD.to(torch.float64).numpy()
    difference = stored_TD.astype(np.float64) - live
    lengths = np.maximum((live**2).sum(axis=1), np.finfo(np.float64).tiny)
    squares_T = (difference**2).sum(axis=1) / lengths
    # What is not finite is as far from any stored state as can be.
    largest = float(np.nan_to_num(np.abs(difference), nan=_FAR, posinf=_FAR).max())
    return largest, np.nan_to_num(squares_T, nan=_FAR, posinf=_FAR)


def _layer_error(
    layer: int,
    found: list[tuple[int, float, npt.NDArray[np.float64]]],
    row_ids: list[str],
    tolerance: float,
) -> LayerError:
    worst, index = max((float(np.sqrt(squares_T.mean())), index) for index, _, squares_T in found)
    return LayerError(
        layer=layer,
        relative_error=float(
            np.sqrt(np.concatenate([squares_T for _, _, squares_T in found]).mean())
        ),
        largest_difference=max(largest for _, largest, _ in found),
        worst_relative_error=worst,
        worst_example=index,
        worst_row_id=row_ids[index],
        tolerance=tolerance,
        within_tolerance=worst <= tolerance,
    )


def _coding_error(codec: Codec) -> float:
    """The relative error that a layer's codec was found to make on the calibration tokens; 0 for an
    exact one."""
    return float(codec.settings.get("found", {}).get("relative_error", 0.0))
