"""Codecs side by side: what each takes, what it loses, how fast one core encodes and decodes.

Run `python benchmarks/codecs.py [CACHE] [--tokens N] [--rounds N] [--json FILE]`. CACHE is a bf16
cache; left out, the embedded teacher makes one. Codecs are fitted to some examples and measured on
others, which lie one segment after another, as in a shard; each codec in a process of its own with
one thread, the best of some rounds. `encode` ends with the bytes of a shard's array. `decode`
starts from them and ends with what travels to the training device (for `klt` the small integers);
`to states` goes on to bfloat16 states on this CPU. Speeds are millions of values a second, and
shares of a copy of the bfloat16 states in memory (the limit). Lossless compression of bf16 is what
the plain containers offer; FP8 with a scale a token is the peers' way."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch
from numcodecs import Blosc
from rich.console import Console
from rich.table import Table

from cache import open_cache
from cache.codecs import EXACT, Codec, CodedStates, packing_named
from cache.codecs.in_memory import InMemoryArray
from pipeline.batches.collate import collate
from pipeline.batches.decoder import StatesDecoder
from pipeline.batches.examples import states_features
from pipeline.codec_fit.fit import fit_codec
from pipeline.codec_fit.measures import relative_error
from pipeline.codec_fit.requirements import CodecRequirement
from pipeline.codec_fit.sample import choose_sample, own_lengths, segments_of, split_sample
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings

Array = npt.NDArray[Any]
PARTS = ("encode", "decode", "to states")


@dataclass(frozen=True)
class Way:
    """A way to store segments: what lies on disk and its size, what is sent to the training device,
    the states again."""

    encode: Callable[[list[Array]], Any]
    size: Callable[[Any], int]
    decode: Callable[[Any], list[Any]]
    states: Callable[[list[Any]], list[Array]]


def copied() -> Way:
    """The limit: the same bytes, copied."""
    return Way(
        lambda segments: np.concatenate(segments),
        lambda stored: stored.nbytes,
        lambda stored: [stored.copy()],
        lambda sent: [each.copy() for each in sent],
    )


def compressed(name: str) -> Way:
    """bf16, losslessly compressed segment by segment, its bytes shuffled before."""
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
    """FP8 e4m3 with a scale a token, by torch, as in vllm-project/speculators."""

    def encode(segments: list[Array]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        states = [
            torch.from_numpy(np.array(segment.view(np.uint16))).view(torch.bfloat16).float()
            for segment in segments
        ]
        scales = [(each.abs().amax(dim=1, keepdim=True) / 448).clamp(min=1e-30) for each in states]
        return [
            ((each / scale).to(torch.float8_e4m3fn), scale)
            for each, scale in zip(states, scales, strict=True)
        ]

    def states(sent: list[tuple[torch.Tensor, torch.Tensor]]) -> list[Array]:
        decoded = [(values.float() * scale).to(torch.bfloat16) for values, scale in sent]
        return [each.view(torch.uint16).numpy().view(ml_dtypes.bfloat16) for each in decoded]

    return Way(
        encode,
        lambda stored: sum(values.numel() + 2 * len(scales) for values, scales in stored),
        lambda stored: [(values.clone(), scales.clone()) for values, scales in stored],
        states,
    )


def ours(codec: Codec) -> Way:
    """A codec of this cache, through its packing and the decoder of training batches."""
    packing, decoder = packing_named(codec.name), StatesDecoder([codec])

    def encode(segments: list[Array]) -> tuple[Array, list[int]]:
        lengths = list(map(len, segments))
        return packing.pack(codec.encode(np.concatenate(segments)), lengths), lengths

    def decode(stored: tuple[Array, list[int]]) -> list[CodedStates]:
        packed, lengths = stored
        width = len(next(iter(codec.parameters.values())))
        held = packing.segments(InMemoryArray(packed), len(packed), lengths, width)
        return [held.read(segment) for segment in range(len(lengths))]

    def states(sent: list[CodedStates]) -> list[Array]:
        return [_on_device(decoder, coded) for coded in sent]

    return Way(encode, lambda stored: stored[0].nbytes, decode, states)


def _on_device(decoder: StatesDecoder, coded: CodedStates) -> Array:
    tokens = {
        "input_ids": torch.zeros(len(coded), dtype=torch.long),
        "loss_mask": torch.ones(len(coded), dtype=torch.bool),
    }
    states = {f"{name}.0": values for name, values in states_features(coded, exact=False).items()}
    return (
        decoder(collate([tokens | states]))["hidden_states"][0]
        .view(torch.uint16)
        .numpy()
        .view(ml_dtypes.bfloat16)
    )


WAYS: dict[str, Callable[[list[Array]], Way]] = {
    "bf16, copied (limit)": lambda fitted_to: copied(),
    "bf16, Blosc LZ4": lambda fitted_to: compressed("lz4"),
    "bf16, Blosc Zstandard": lambda fitted_to: compressed("zstd"),
    "FP8 e4m3, a scale a token": lambda fitted_to: fp8(),
    "int8": lambda fitted_to: ours(_fitted(CodecRequirement("int8"), fitted_to)),
    "klt rel=0.03": lambda fitted_to: ours(
        _fitted(CodecRequirement("klt", "rel", 0.03), fitted_to)
    ),
    "klt rel=0.09": lambda fitted_to: ours(
        _fitted(CodecRequirement("klt", "rel", 0.09), fitted_to)
    ),
    "klt rel=0.2": lambda fitted_to: ours(_fitted(CodecRequirement("klt", "rel", 0.2), fitted_to)),
}


def _fitted(asked: CodecRequirement, fitted_to: list[Array]) -> Codec:
    return fit_codec(asked, split_sample(fitted_to), None)


def measure(name: str, states_path: Path, rounds: int) -> dict[str, float]:
    """A way's figures; in a process of its own with one thread."""
    torch.set_num_threads(1)
    with np.load(states_path) as held:
        fitted_to, segments = (
            [
                segment.view(ml_dtypes.bfloat16)
                for segment in np.split(held[kind], held[f"{kind}_starts"])
            ]
            for kind in ("fitted_to", "measured")
        )
    way = WAYS[name](fitted_to)
    values = sum(segment.size for segment in segments)
    best = dict.fromkeys(PARTS, np.inf)
    stored, decoded = None, None
    for _ in range(rounds):
        began = time.perf_counter()
        stored = way.encode(segments)
        encoded_at = time.perf_counter()
        sent = way.decode(stored)
        sent_at = time.perf_counter()
        decoded = way.states(sent)
        ended = time.perf_counter()
        spent = dict(
            zip(PARTS, (encoded_at - began, sent_at - encoded_at, ended - encoded_at), strict=True)
        )
        best = {part: min(seconds, spent[part]) for part, seconds in best.items()}
    exact, found = np.concatenate(segments), np.concatenate(decoded)
    return {
        "bits a value": 8 * way.size(stored) / values,
        "relative error": relative_error(exact, found),
        **{
            f"{part}, million values a second": values / seconds / 1e6
            for part, seconds in best.items()
        },
    }


def save_states(cache_path: Path, tokens: int, path: Path) -> tuple[int, int]:
    """Segments to fit to and segments to measure on, of other examples; returns the measured tokens,
    and their channels."""
    with open_cache(cache_path) as cache:
        layer = cache.layers[0]
        if cache.codecs[layer].name != EXACT:
            raise click.UsageError(
                f"{cache_path}: layer {layer} is stored as {cache.codecs[layer].name}; a {EXACT}"
                " cache is needed"
            )
        own = own_lengths(cache)
        fitted_to = choose_sample(own, min(tokens, sum(own) // 2), 0)
        rest = sorted({*range(len(cache))} - {*fitted_to})
        measured = [rest[i] for i in choose_sample([own[index] for index in rest], tokens, 1)]
        arrays = {}
        for kind, indices in (("fitted_to", fitted_to), ("measured", measured)):
            _, segments = segments_of(cache, indices, layer)
            arrays[kind] = np.concatenate(segments).view(np.uint16)
            arrays[f"{kind}_starts"] = np.cumsum(list(map(len, segments)))[:-1]
        np.savez(path, **arrays)
        return arrays["measured"].shape


@click.command(help=__doc__)
@click.argument("cache_path", metavar="[CACHE]", required=False, type=click.Path(path_type=Path))
@click.option("--tokens", default=32768, show_default=True, help="To measure on, and to fit to.")
@click.option("--rounds", default=3, show_default=True)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here, too."
)
def main(cache_path: Path | None, tokens: int, rounds: int, json_path: Path | None) -> None:
    """Measure and print."""
    os.environ |= dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS"), "1"
    )
    with tempfile.TemporaryDirectory() as folder:
        if cache_path is None:
            cache_path = Path(folder) / "cache"
            extract(
                prepare(
                    ExtractSettings(
                        teacher=EMBEDDED_TEACHER, dataset=EMBEDDED_DATASET, cache=cache_path
                    )
                )
            )
        shape = save_states(cache_path, tokens, Path(folder) / "states.npz")
        figures = []
        for name in WAYS:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                figures.append(
                    {
                        "codec": name,
                        **process.submit(
                            measure, name, Path(folder) / "states.npz", rounds
                        ).result(),
                    }
                )
    limit = figures[0]
    for figure in figures:
        for part in PARTS:
            speed = f"{part}, million values a second"
            figure[f"{part}, share of limit"] = figure[speed] / limit[speed]
    table = Table(
        title=(
            f"{shape[0]:,} tokens of {shape[1]} channels, one core: million values a second (share"
            " of the limit)"
        )
    )
    for heading in ("codec", "bits a value", "relative error", *PARTS):
        table.add_column(heading, justify="left" if heading == "codec" else "right")
    for figure in figures:
        speeds = [
            f"{figure[f'{part}, million values a second']:,.0f}"
            f" ({figure[f'{part}, share of limit']:.3f})"
            for part in PARTS
        ]
        table.add_row(
            figure["codec"],
            f"{figure['bits a value']:.3f}",
            f"{figure['relative error']:.4f}",
            *speeds,
        )
    Console(width=130).print(table)
    if json_path:
        json_path.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
