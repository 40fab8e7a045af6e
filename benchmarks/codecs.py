"""Compare codecs: bit rate, relative error, and the speed of one core.

Run `python benchmarks/codecs.py [CACHE] [--tokens N] [--rounds N] [--json FILE]`. CACHE is a bf16
cache; by default one is extracted with the embedded teacher. Codecs are fitted to some examples and
measured on others, stored one segment after another, as in a shard. Each codec is measured in a
process of its own with one thread; the best round counts.

- `encode` ends with the bytes of a shard's array
- `decode` starts from these and ends with what is sent to the training device (for `klt` the small
  integers)
- `to states` is `decode`, then bfloat16 states on this CPU

Speeds are millions of values per second, and shares of the speed of a copy of the bfloat16 states
in memory (the limit). Lossless compression of bf16 is what containers offer; FP8 with one scale per
token is what peers do.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import ml_dtypes
import numpy as np
import torch
from codec_ways import WAYS
from output import json_option, write_json
from processes import in_process
from rich.console import Console
from rich.table import Table

from cache import open_cache
from cache.codecs import EXACT
from pipeline.codec_fit.measures import relative_error
from pipeline.codec_fit.sample import choose_sample, own_lengths, segments_of
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings

PARTS = ("encode", "decode", "to states")


def measure(name: str, states_path: Path, rounds: int) -> dict[str, float]:
    """Return the figures of one way, measured with one thread."""
    torch.set_num_threads(1)
    with np.load(states_path) as arrays:
        calibration, segments = (
            [
                segment.view(ml_dtypes.bfloat16)
                for segment in np.split(arrays[kind], arrays[f"{kind}_starts"])
            ]
            for kind in ("calibration", "measured")
        )
    way = WAYS[name](calibration)
    values = sum(segment.size for segment in segments)
    best = dict.fromkeys(PARTS, np.inf)
    stored, restored = None, None
    for _ in range(rounds):
        times = [time.perf_counter()]
        stored = way.encode(segments)
        times.append(time.perf_counter())
        sent = way.decode(stored)
        times.append(time.perf_counter())
        restored = way.restore(sent)
        times.append(time.perf_counter())
        began, encoded, decoded, ended = times
        seconds = (encoded - began, decoded - encoded, ended - encoded)
        best = {part: min(best[part], new) for part, new in zip(PARTS, seconds, strict=True)}
    return {
        "bits a value": 8 * way.size(stored) / values,
        "relative error": relative_error(np.concatenate(segments), np.concatenate(restored)),
        **{
            f"{part}, million values a second": values / seconds / 1e6
            for part, seconds in best.items()
        },
    }


def save_states(cache_path: Path, tokens: int, path: Path) -> tuple[int, int]:
    """Save segments to fit to and segments to measure; return the shape of the measured states."""
    with open_cache(cache_path) as cache:
        layer = cache.layers[0]
        if cache.codecs[layer].name != EXACT:
            raise click.UsageError(
                f"{cache_path}: layer {layer} is stored as {cache.codecs[layer].name}; a {EXACT}"
                " cache is needed"
            )
        own = own_lengths(cache)
        calibration = choose_sample(own, min(tokens, sum(own) // 2), 0)
        rest = sorted({*range(len(cache))} - {*calibration})
        measured = [rest[i] for i in choose_sample([own[index] for index in rest], tokens, 1)]
        arrays = {}
        for kind, indices in (("calibration", calibration), ("measured", measured)):
            _, segments = segments_of(cache, indices, layer)
            arrays[kind] = np.concatenate(segments).view(np.uint16)
            arrays[f"{kind}_starts"] = np.cumsum(list(map(len, segments)))[:-1]
        np.savez(path, **arrays)
        return arrays["measured"].shape


@click.command(help=__doc__)
@click.argument("cache_path", metavar="[CACHE]", required=False, type=click.Path(path_type=Path))
@click.option("--tokens", default=32768, show_default=True, help="To measure, and to fit to.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@json_option
def main(cache_path: Path | None, tokens: int, rounds: int, json_path: Path | None) -> None:
    """Measure and print."""
    os.environ |= dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS"), "1"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if cache_path is None:
            cache_path = folder / "cache"
            settings = ExtractSettings(
                teacher=EMBEDDED_TEACHER, dataset=EMBEDDED_DATASET, cache=cache_path
            )
            extract(prepare(settings))
        states_path = folder / "states.npz"
        shape = save_states(cache_path, tokens, states_path)
        figures = [{"codec": way, **in_process(measure, way, states_path, rounds)} for way in WAYS]
    limit = figures[0]
    for figure in figures:
        for part in PARTS:
            speed = f"{part}, million values a second"
            figure[f"{part}, share of limit"] = figure[speed] / limit[speed]
    Console(width=130).print(table_of(figures, shape))
    write_json(json_path, figures)


def table_of(figures: list[dict[str, Any]], shape: tuple[int, int]) -> Table:
    """Return the figures as a table."""
    tokens, channels = shape
    title = (
        f"{tokens:,} tokens of {channels} channels, one core: million values per second"
        " (share of the limit)"
    )
    table = Table(title=title)
    for heading in ("codec", "bits per value", "relative error", *PARTS):
        table.add_column(heading, justify="left" if heading == "codec" else "right")
    for figure in figures:
        speeds = [
            f"{figure[f'{part}, million values a second']:,.0f}"
            f" ({figure[f'{part}, share of limit']:.3f})"
            for part in PARTS
        ]
        bits, error = f"{figure['bits a value']:.3f}", f"{figure['relative error']:.4f}"
        table.add_row(figure["codec"], bits, error, *speeds)
    return table


if __name__ == "__main__":
    main()
