"""What others store hidden states in, to be compared with: rounded values, and the bits that they
take."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

_SCALE_BITS = 16
_LARGEST_E4M3 = 448.0
_GROUP = 32


def fp8_per_token(hidden_ND: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], float]:
    """FP8 e4m3 with a scale a token, as in vllm-project/speculators: the decoded states, and bits a
    value."""
    values_ND = hidden_ND.astype(np.float32)
    scales_N1 = np.abs(values_ND).max(axis=1, keepdims=True, initial=1e-30) / _LARGEST_E4M3
    rounded_ND = (values_ND / scales_N1).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    return _bf16(rounded_ND * scales_N1), 8 + _SCALE_BITS / hidden_ND.shape[1]


def int8_per_token(hidden_ND: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], float]:
    """int8 with a scale a token and none a channel: the decoded states, and bits a value."""
    values_ND = hidden_ND.astype(np.float32)
    scales_N1 = np.abs(values_ND).max(axis=1, keepdims=True, initial=1e-30) / 127
    return _bf16(np.rint(values_ND / scales_N1) * scales_N1), 8 + _SCALE_BITS / hidden_ND.shape[1]


def int4_in_groups(
    hidden_ND: npt.NDArray[Any], channel_scales_D: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], float]:
    """int4 with a scale for each group of 32 values of a token, channels brought to one size
    before.

    Returns the decoded states, and bits a value.
    """
    tokens, channels = hidden_ND.shape
    values_ND = np.pad(
        hidden_ND.astype(np.float32) / channel_scales_D, ((0, 0), (0, -channels % _GROUP))
    )
    grouped_NGK = values_ND.reshape(tokens, -1, _GROUP)
    scales_NG1 = np.abs(grouped_NGK).max(axis=2, keepdims=True, initial=1e-30) / 7
    decoded_ND = (np.rint(grouped_NGK / scales_NG1) * scales_NG1).reshape(tokens, -1)[
        :, :channels
    ] * channel_scales_D
    return _bf16(decoded_ND), 4 + _SCALE_BITS / _GROUP


def _bf16(values_ND: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    rounded: npt.NDArray[Any] = values_ND.astype(ml_dtypes.bfloat16)
    return rounded
