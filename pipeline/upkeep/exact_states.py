"""Exact hidden states of a cache's examples, from the cache or from its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy.typing as npt
import torch

from cache import Cache
from cache.codecs import EXACT
from pipeline.codec_fit.sample import segments_of
from pipeline.data.tokenized_dataset import TokenizedExample
from pipeline.extract.padded_batch import read_batch
from pipeline.teacher.model import Teacher


def exact_segments(
    cache: Cache, indices: Sequence[int], layer: int, teacher: Teacher | None
) -> tuple[list[npt.NDArray[Any]], list[npt.NDArray[Any]]]:
    """Return the exact states of some examples, split as by `segments_of`.

    Args:
        cache: to read from.
        indices: of the examples.
        layer: one of the cache's.
        teacher: computes the states of a layer that is not stored exactly.
    """
    if cache.codecs[layer].name == EXACT:
        return segments_of(cache, indices, layer)
    assert teacher is not None

    def live_states(index: int) -> npt.NDArray[Any]:
        cached = cache.coded_example(index, ())
        example = TokenizedExample(cached.row_id, cached.input_ids, cached.loss_mask)
        (states,) = read_batch(teacher, [example])
        bits_TD: npt.NDArray[Any] = states[layer].contiguous().view(torch.uint16).numpy()
        return bits_TD.view(ml_dtypes.bfloat16)

    return segments_of(cache, indices, layer, live_states)
