"""Cached hidden states against the live teacher, on a sample: are they its, and how exactly?"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cache import Example, open_cache
from pipeline.data.tokens import TokenizedExample
from pipeline.device import choose_device
from pipeline.extract.reading import read_batch
from pipeline.teacher.same import load_same_teacher

TOLERANCE = {"fp32": 0.01, "bf16": 0.1}
"""Relative error up to which stored states are the teacher's, by its compute dtype. bfloat16 rounds to 0.4 %, a whole pass
in it drifts by some per cent with batch and machine, states of other tokens are off by more than 50 %."""


@dataclass(frozen=True)
class LayerError:
    """How far a layer's stored states are from the live ones.

    Attributes:
        relative_error: root mean square of the difference over that of the live states, over all sampled tokens.
        worst_example: the same of the example where it is largest, named by its index and row id.
        largest_difference: of any single value.
    """

    layer: int
    relative_error: float
    largest_difference: float
    worst_relative_error: float
    worst_example: int
    worst_row_id: str
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
    root: Path,
    *,
    sample: int,
    teacher: str | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Recheck:
    """Run the live teacher over a random sample of a cache's examples and compare.

    Args:
        root: a whole cache.
        sample: how many examples.
        teacher: where it lies now; None: where it lay when the cache was made.
        device: where it computes; its type is the cache's.
        seed: of the sample.
        progress: called with the examples done and their number in all.

    Raises:
        CacheError: it is not a whole cache.
        InputError: the teacher is not there, or not the one that the cache was made with.
    """
    with open_cache(root) as cache:
        chosen = random.Random(seed).sample(range(len(cache)), min(sample, len(cache)))
        live = load_same_teacher(
            teacher or cache.manifest.provenance["teacher"], list(cache.layers), cache.identity, choose_device(device)
        )
        errors: dict[int, list[tuple[float, float, float, int]]] = {layer: [] for layer in cache.layers}
        tokens = 0
        for done, index in enumerate(chosen, start=1):
            example = cache[index]
            (states,) = read_batch(live, [TokenizedExample(example.row_id, example.input_ids, example.loss_mask)])
            for layer, (squares, live_squares, largest) in _differences(example, states).items():
                errors[layer].append((squares, live_squares, largest, index))
            tokens += len(example)
            progress(done, len(chosen))
        dtype = cache.identity["compute_dtype"]
        row_ids = cache.row_ids
    return Recheck(
        examples=len(chosen),
        tokens=tokens,
        compute_dtype=dtype,
        tolerance=TOLERANCE[dtype],
        layers=[_layer_error(layer, found, row_ids, TOLERANCE[dtype]) for layer, found in errors.items()],
    )


def _differences(example: Example, states: dict[int, torch.Tensor]) -> dict[int, tuple[float, float, float]]:
    """For each layer: squares of the differences and of the live values, summed, and the largest difference."""
    found = {}
    for layer, stored in example.hidden_states.items():
        live = states[layer].to(torch.float64).numpy()
        difference = stored.astype(np.float64) - live
        found[layer] = float((difference**2).sum()), float((live**2).sum()), float(np.abs(difference).max())
    return found


def _layer_error(layer: int, found: list[tuple[float, float, float, int]], row_ids: list[str], tolerance: float) -> LayerError:
    squares, live_squares, largest, _ = zip(*found, strict=True)
    worst, index = max(((_ratio(error, live)), index) for error, live, _, index in found)
    return LayerError(
        layer=layer,
        relative_error=_ratio(sum(squares), sum(live_squares)),
        largest_difference=max(largest),
        worst_relative_error=worst,
        worst_example=index,
        worst_row_id=row_ids[index],
        within_tolerance=worst <= tolerance,
    )


def _ratio(squares: float, live_squares: float) -> float:
    """Root of a ratio of squares; the live states of a real teacher are never all zero."""
    return float(np.sqrt(squares / max(live_squares, np.finfo(np.float64).tiny)))
