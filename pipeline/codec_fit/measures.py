"""Rate and distortion of codecs, and the lower bound of the rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch

from cache.codecs import CodedStates, packing_named
from pipeline.teacher.model import Teacher

Divergence = Callable[[npt.NDArray[Any], Sequence[npt.NDArray[Any]]], "list[KL]"]
"""Returns the KL divergence between exact states `[N, d_teacher]` and each of the stored ones."""
_TOKENS_AT_ONCE = 256
_MOST_PACKED = 1 << 19
"""Most tokens that are packed together, like those of a shard."""


@dataclass(frozen=True)
class KL:
    """A KL divergence in nats per token: mean over tokens, and its standard error."""

    mean: float
    error: float


def relative_error(exact_ND: npt.NDArray[Any], stored_ND: npt.NDArray[Any]) -> float:
    """Return the root mean square over tokens of |stored - exact| / |exact|."""
    exact = exact_ND.astype(np.float64)
    squares_N = ((stored_ND.astype(np.float64) - exact) ** 2).sum(axis=1)
    return float(
        np.sqrt((squares_N / np.maximum((exact**2).sum(axis=1), np.finfo(np.float32).tiny)).mean())
    )


def squared_error(exact_ND: npt.NDArray[Any], stored_ND: npt.NDArray[Any]) -> float:
    """Return the mean over tokens of |stored - exact|²."""
    return float(
        ((stored_ND.astype(np.float64) - exact_ND.astype(np.float64)) ** 2).sum(axis=1).mean()
    )


def stored_bits(codec: str, coded: CodedStates, lengths: Sequence[int]) -> float:
    """Return the bits per value of coded segments of these lengths, packed in large shards."""
    packing, size, start = packing_named(codec), 0, 0
    shards: list[list[int]] = [[]]
    for length in lengths:
        if shards[-1] and sum(shards[-1]) + length > _MOST_PACKED:
            shards.append([])
        shards[-1].append(length)
    for shard in shards:
        size += packing.pack(coded.rows(start, start + sum(shard)), shard).nbytes
        start += sum(shard)
    return 8 * size / coded.values.size


def eigenvalues(hidden_ND: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the eigenvalues of the states' covariance, ascending."""
    centred_ND: npt.NDArray[Any] = hidden_ND.astype(np.float64)
    centred_ND -= centred_ND.mean(axis=0)
    spectrum_D: npt.NDArray[Any] = np.linalg.eigvalsh(centred_ND.T @ centred_ND / len(centred_ND))
    positive_D: npt.NDArray[np.float64] = np.maximum(spectrum_D, 0.0)
    return positive_D


def gaussian_bound(spectrum_D: npt.NDArray[np.float64], error: float) -> float:
    """Return the fewest bits per value that code a Gaussian source with this squared error.

    Reverse water-filling (Cover and Thomas, Elements of Information Theory, theorem 10.3.3).

    Args:
        spectrum_D: eigenvalues of the covariance.
        error: squared error, summed over the components.
    """
    if error <= 0:
        return math.inf
    low, high = 0.0, float(spectrum_D.max(initial=0.0))
    if error >= spectrum_D.sum():
        return 0.0
    for _ in range(200):
        level = (low + high) / 2
        low, high = (level, high) if np.minimum(spectrum_D, level).sum() < error else (low, level)
    return float(0.5 * np.log2(np.maximum(spectrum_D / high, 1.0)).mean())


def divergence_of(teacher: Teacher) -> Divergence:
    """Return a function that measures KL(exact || stored) of the predictions of the LM head."""

    def measure(exact_ND: npt.NDArray[Any], stored: Sequence[npt.NDArray[Any]]) -> list[KL]:
        nats: list[list[torch.Tensor]] = [[] for _ in stored]
        for start in range(0, len(exact_ND), _TOKENS_AT_ONCE):
            rows = slice(start, start + _TOKENS_AT_ONCE)
            exact_NV = teacher.log_probabilities(_tensor(exact_ND[rows]))
            for number, stored_ND in enumerate(stored):
                stored_NV = teacher.log_probabilities(_tensor(stored_ND[rows]))
                kl_N = (exact_NV.exp() * (exact_NV - stored_NV)).sum(dim=-1)
                nats[number].append(kl_N.double().cpu())
        return [_summary(torch.cat(batches)) for batches in nats]

    return measure


def _summary(nats_N: torch.Tensor) -> KL:
    error = float(nats_N.std()) / math.sqrt(len(nats_N)) if len(nats_N) > 1 else 0.0
    return KL(max(float(nats_N.mean()), 0.0), error)  # rounding can make a divergence of 0 negative


def _tensor(hidden_ND: npt.NDArray[Any]) -> torch.Tensor:
    bits = np.ascontiguousarray(hidden_ND.astype(ml_dtypes.bfloat16, copy=False)).view(np.uint16)
    return torch.from_numpy(bits.copy()).view(torch.bfloat16).float()
