"""Compare attention implementations in the teacher's forward pass, eager and compiled.

Run `python benchmarks/teacher_pass.py [--teacher T --dataset D] [--limit N] [--json FILE]`. The
packed batches of `extract`, with nothing written, all ways with the same weights in one process.
`first` is the first pass over all batches, including compilation; `seconds` is the fastest of the
later ones.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from output import json_option, write_json
from rich.console import Console
from rich.table import Table

from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.extract.forward import TeacherPass
from pipeline.extract.prepare import prepare
from pipeline.extract.settings import ExtractSettings
from pipeline.extract.worker import ShardWorker
from pipeline.teacher.model import Teacher


def with_attention(name: str) -> Callable[[Teacher], None]:
    """Use one of transformers' attention implementations."""
    return lambda teacher: teacher.body.set_attn_implementation(name)


def compiled(teacher: Teacher) -> None:
    """Use SDPA, with each block compiled for any length."""
    with_attention("sdpa")(teacher)
    for child in teacher.body.children():
        for block in child if isinstance(child, torch.nn.ModuleList) else ():
            block.compile(dynamic=True)


def ways(device: str) -> dict[str, Callable[[Teacher], None]]:
    """Return the ways that this machine supports; compilation lasts, so it is last."""
    supported = {"eager": with_attention("eager"), "sdpa": with_attention("sdpa")}
    if device != "cpu" and importlib.util.find_spec("flash_attn"):
        supported["flash_attention_2"] = with_attention("flash_attention_2")
    return supported | {"sdpa, blocks compiled": compiled}


@click.command(help=__doc__)
@click.option("--teacher", default=EMBEDDED_TEACHER, help="[default: the embedded one]")
@click.option("--dataset", default=EMBEDDED_DATASET, help="[default: embedded]")
@click.option("--limit", default=200, show_default=True, help="Rows.")
@click.option(
    "--rounds", default=3, show_default=True, help="Passes of each way after the first one."
)
@click.option("--device", default="auto", show_default=True)
@json_option
def main(
    teacher: str, dataset: str, limit: int, rounds: int, device: str, json_path: Path | None
) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(
            ExtractSettings(
                teacher=teacher,
                dataset=dataset,
                cache=Path(folder) / "c",
                limit=limit,
                device=device,
            )
        )
        model = ShardWorker(prepared.work()).load()
        figures: dict[str, dict[str, Any]] = {}
        plain: dict[int, Any] = {}
        for way, prepare_model in ways(model.device.type).items():
            prepare_model(model)
            times = []
            for _ in range(rounds + 1):
                reader = TeacherPass(
                    model, prepared.dataset.examples, prepared.sharing, prepared.batch_tokens
                )
                began = time.perf_counter()
                segments = [
                    segment for shard in prepared.shards for segment in reader.read(shard).segments
                ]
                times.append(time.perf_counter() - began)
            states = torch.cat(
                [
                    torch.from_numpy(segment.hidden_states[-1].astype("float32"))
                    for segment in segments
                ]
            )
            plain.setdefault(0, states)
            error = float((states - plain[0]).norm() / plain[0].norm())
            figures[way] = {
                "way": way,
                "first": times[0],
                "seconds": min(times[1:]),
                "relative_difference": error,
            }
    table = Table(
        title=(
            f"{limit} rows of {Path(dataset).name}, {prepared.manifest.tokens:,} tokens, teacher"
            f" {Path(teacher).name}"
        )
    )
    for heading in ("way", "first, s", "seconds", "tokens/s", "of sdpa", "differs from eager by"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for figure in figures.values():
        figure["tokens_per_second"] = prepared.manifest.tokens / figure["seconds"]
        figure["of_sdpa"] = figures["sdpa"]["seconds"] / figure["seconds"]
        table.add_row(
            figure["way"],
            f"{figure['first']:.2f}",
            f"{figure['seconds']:.2f}",
            f"{figure['tokens_per_second']:,.0f}",
            f"{figure['of_sdpa']:.2f}",
            f"{figure['relative_difference']:.4f}",
        )
    Console(width=130).print(table)
    write_json(json_path, list(figures.values()))


if __name__ == "__main__":
    main()
