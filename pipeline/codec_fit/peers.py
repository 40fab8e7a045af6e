"""Formats in which other projects store hidden states, for comparison with the codecs."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

_SCALE_BITS = 16
_LARGEST_E4M3 = 448.0
_GROUP = 32


def fp8_per_token(hidden_ND: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], float]:
    """Return decoded states and bits per value of FP8 e4m3 with one scale per token.

    The format of vllm-project/speculators.
    """
    values_ND = hidden_ND.astype(np.float32)
    scales_N1 = np.abs(values_ND).max(axis=1, keepdims=True, initial=1e-30) / _LARGEST_E4M3
    rounded_ND = (values_ND / scales_N1).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    return _bf16(rounded_ND * scales_N1), 8 + _SCALE_BITS / hidden_ND.shape[1]


def int8_per_token(hidden_ND: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], float]:
    """Return decoded states and bits per value of int8 with one scale per token."""
    values_ND = hidden_ND.astype(np.float32)
    scales_N1 = np.abs(values_ND).max(axis=1, keepdims=True, initial=1e-30) / 127
    return _bf16(np.rint(values_ND / scales_N1) * scales_N1), 8 + _SCALE_BITS / hidden_ND.shape[1]


def int4_in_groups(
    hidden_ND: npt.NDArray[Any], channel_scales_D: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], float]:
    """Return decoded states and bits per value of int4 with one scale per 32 values of a token.

    Args:
        hidden_ND: the states.
        channel_scales_D: divide the channels first.
    """
    tokens, channels = hidden_ND.shape
    scaled_ND = hidden_ND.astype(np.float32) / channel_scales_D
    grouped_NGK = np.pad(scaled_ND, ((0, 0), (0, -channels % _GROUP))).reshape(tokens, -1, _GROUP)
    scales_NG1 = np.abs(grouped_NGK).max(axis=2, keepdims=True, initial=1e-30) / 7
    decoded_NGK = np.rint(grouped_NGK / scales_NG1) * scales_NG1
    decoded_ND = decoded_NGK.reshape(tokens, -1)[:, :channels] * channel_scales_D
    return _bf16(decoded_ND), 4 + _SCALE_BITS / _GROUP


def _bf16(values_ND: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    rounded: npt.NDArray[Any] = values_ND.astype(ml_dtypes.bfloat16)
    return rounded
