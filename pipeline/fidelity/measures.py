"""How much of some hidden states a codec loses, and the least that any codec would take for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch

from pipeline.teacher.model import Teacher

Divergence = Callable[[npt.NDArray[Any], npt.NDArray[Any]], "KL"]
"""The KL divergence between what exact and stored states `[N, d_teacher]` predict."""
_TOKENS_AT_ONCE = 256


@dataclass(frozen=True)
class KL:
    """Nats a token: the mean over some tokens, and the standard error of that mean."""

    mean: float
    error: float


def relative_error(exact_ND: npt.NDArray[Any], stored_ND: npt.NDArray[Any]) -> float:
    """Length of the difference over length of the exact state; root mean square over the tokens."""
    exact = exact_ND.astype(np.float64)
    squares_N = ((stored_ND.astype(np.float64) - exact) ** 2).sum(axis=1)
    return float(np.sqrt((squares_N / np.maximum((exact**2).sum(axis=1), np.finfo(np.float32).tiny)).mean()))


def squared_error(exact_ND: npt.NDArray[Any], stored_ND: npt.NDArray[Any]) -> float:
    """Squared length of the difference; mean over the tokens."""
    return float(((stored_ND.astype(np.float64) - exact_ND.astype(np.float64)) ** 2).sum(axis=1).mean())


def eigenvalues(hidden_ND: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Of the covariance of some states."""
    centred_ND: npt.NDArray[Any] = hidden_ND.astype(np.float64)
    centred_ND -= centred_ND.mean(axis=0)
    found: npt.NDArray[Any] = np.linalg.eigvalsh(centred_ND.T @ centred_ND / len(centred_ND))
    spectrum_D: npt.NDArray[np.float64] = np.maximum(found, 0.0)
    return spectrum_D


def gaussian_bound(spectrum_D: npt.NDArray[np.float64], error: float) -> float:
    """Bits a value below which no code of a Gaussian source of these eigenvalues has so small a squared error.

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
    """Measures with a teacher's LM head: KL(what exact states predict || what stored states predict)."""

    def measure(exact_ND: npt.NDArray[Any], stored_ND: npt.NDArray[Any]) -> KL:
        found = []
        for start in range(0, len(exact_ND), _TOKENS_AT_ONCE):
            rows = slice(start, start + _TOKENS_AT_ONCE)
            exact_NV, stored_NV = (teacher.log_probabilities(_tensor(states[rows])) for states in (exact_ND, stored_ND))
            found.append((exact_NV.exp() * (exact_NV - stored_NV)).sum(dim=-1).double().cpu())
        each_N = torch.cat(found)
        return KL(float(each_N.mean()), float(each_N.std() / math.sqrt(len(each_N))) if len(each_N) > 1 else 0.0)

    return measure


def _tensor(hidden_ND: npt.NDArray[Any]) -> torch.Tensor:
    bits = np.ascontiguousarray(hidden_ND.astype(ml_dtypes.bfloat16, copy=False)).view(np.uint16)
    return torch.from_numpy(bits.copy()).view(torch.bfloat16).float()
