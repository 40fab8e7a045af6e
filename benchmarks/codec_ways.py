"""The ways to store hidden states that `codecs.py` compares: encode, decode, and restore states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch
from numcodecs import Blosc

from cache.codecs import Codec, CodedStates, packing_named
from cache.codecs.in_memory import InMemoryArray
from pipeline.batches.collate import collate
from pipeline.batches.decoder import StatesDecoder
from pipeline.batches.examples import states_features
from pipeline.codec_fit.fit import fit_codec
from pipeline.codec_fit.requirements import CodecRequirement
from pipeline.codec_fit.sample import split_sample

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Way:
    """A way to store segments `[T, d_teacher]`.

    Attributes:
        encode: segments to their stored form.
        size: bytes of the stored form.
        decode: stored form to what is sent to the training device, per segment.
        restore: what was sent to bfloat16 states, per segment.
    """

    encode: Callable[[list[Array]], Any]
    size: Callable[[Any], int]
    decode: Callable[[Any], list[Any]]
    restore: Callable[[list[Any]], list[Array]]


def copied() -> Way:
    """Copy the bytes in memory (the limit)."""
    return Way(
        lambda segments: np.concatenate(segments),
        lambda stored: stored.nbytes,
        lambda stored: [stored.copy()],
        lambda sent: [states.copy() for states in sent],
    )


def compressed(name: str) -> Way:
    """Compress bf16 losslessly, segment by segment, with shuffled bytes."""
    codec = Blosc(cname=name, clevel=5, shuffle=Blosc.SHUFFLE, typesize=2)
    return Way(
        lambda segments: [
            (codec.encode(np.ascontiguousarray(segment).view(np.uint16)), segment.shape)
            for segment in segments
        ],
        lambda stored: sum(len(data) for data, _ in stored),
        lambda stored: [
            np.frombuffer(codec.decode(data), ml_dtypes.bfloat16).reshape(shape)
            for data, shape in stored
        ],
        lambda sent: sent,
    )


def fp8() -> Way:
    """Store FP8 e4m3 with one scale per token, by torch, as in vllm-project/speculators."""

    def encode(segments: list[Array]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        stored = []
        for segment in segments:
            bits = torch.from_numpy(np.array(segment.view(np.uint16)))
            states = bits.view(torch.bfloat16).float()
            scales = (states.abs().amax(dim=1, keepdim=True) / 448).clamp(min=1e-30)
            stored.append(((states / scales).to(torch.float8_e4m3fn), scales))
        return stored

    def restore(sent: list[tuple[torch.Tensor, torch.Tensor]]) -> list[Array]:
        return [_as_numpy((values.float() * scales).to(torch.bfloat16)) for values, scales in sent]

    return Way(
        encode,
        lambda stored: sum(values.numel() + 2 * len(scales) for values, scales in stored),
        lambda stored: [(values.clone(), scales.clone()) for values, scales in stored],
        restore,
    )


def cache_codec(codec: Codec) -> Way:
    """Use a codec of the cache, with its packing and the decoder of training batches."""
    packing, decoder = packing_named(codec.name), StatesDecoder([codec])

    def encode(segments: list[Array]) -> tuple[Array, list[int]]:
        lengths = list(map(len, segments))
        return packing.pack(codec.encode(np.concatenate(segments)), lengths), lengths

    def decode(stored: tuple[Array, list[int]]) -> list[CodedStates]:
        packed, lengths = stored
        width = len(next(iter(codec.parameters.values())))
        segments = packing.segments(InMemoryArray(packed), len(packed), lengths, width)
        return [segments.read(segment) for segment in range(len(lengths))]

    def restore(sent: list[CodedStates]) -> list[Array]:
        return [_decoded(decoder, coded) for coded in sent]

    return Way(encode, lambda stored: stored[0].nbytes, decode, restore)


def _decoded(decoder: StatesDecoder, coded: CodedStates) -> Array:
    tokens = {
        "input_ids": torch.zeros(len(coded), dtype=torch.long),
        "loss_mask": torch.ones(len(coded), dtype=torch.bool),
    }
    states = {f"{name}.0": values for name, values in states_features(coded, exact=False).items()}
    return _as_numpy(decoder(collate([tokens | states]))["hidden_states"][0])


def _as_numpy(states: torch.Tensor) -> Array:
    return states.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)


def _fitted(codec: str, calibration: list[Array], relative_error: float | None = None) -> Way:
    measure = None if relative_error is None else "rel"
    requirement = CodecRequirement(codec, measure, relative_error or 0.0)
    return cache_codec(fit_codec(requirement, split_sample(calibration), None))


WAYS: dict[str, Callable[[list[Array]], Way]] = {
    "bf16, copied (limit)": lambda calibration: copied(),
    "bf16, Blosc LZ4": lambda calibration: compressed("lz4"),
    "bf16, Blosc Zstandard": lambda calibration: compressed("zstd"),
    "FP8 e4m3, token scales": lambda calibration: fp8(),
    "int8": lambda calibration: _fitted("int8", calibration),
    "klt rel=0.03": lambda calibration: _fitted("klt", calibration, 0.03),
    "klt rel=0.09": lambda calibration: _fitted("klt", calibration, 0.09),
    "klt rel=0.2": lambda calibration: _fitted("klt", calibration, 0.2),
}
"""Functions that return a way, given the segments that its codec is fitted to."""
