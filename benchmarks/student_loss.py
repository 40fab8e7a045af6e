"""Measure what a codec costs the student: validation losses with ever lower bit rates.

Run `python benchmarks/student_loss.py CACHE OUT [--codec int8 --codec kl=0.01 --codec bits=1.9 …]
[--seeds N] [--json FILE]`. CACHE is a bf16 cache whose teacher is available. It is converted to
each codec in OUT/caches, and a student is trained for each codec and seed in OUT/runs: with the
same steps, the same order of the same examples, the same initial weights. The loss on held-out
examples is measured once with the student's own cache, and once with the exact states, which it
reads when it generates. An interrupted run is resumed.
"""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path
from typing import Any

import click
import torch
from output import json_option, write_json
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from cache import open_cache
from cache.upkeep.convert import convert_cache
from pipeline.batches.collate import collate
from pipeline.batches.decoder import StatesDecoder
from pipeline.batches.whole_examples import WholeExamples
from pipeline.device import choose_device
from pipeline.model import LLMModulesForCausalLM
from pipeline.runs.folder import RunFolder
from pipeline.runs.rows import rows_of
from pipeline.runs.settings import TrainSettings
from pipeline.training.run import train
from pipeline.training.validation import validation_loss
from pipeline.upkeep.recode import new_codecs
from pipeline.upkeep.settings import RecodeSettings

CODECS = ("int8", "kl=0.01", "bits=1.9", "kl=0.05", "bits=0.9")


def converted(source: Path, folder: Path, codec: str, teacher: str | None) -> Path:
    """Convert to a codec (its name, or a requirement of `klt`); return the new cache's folder."""
    measure, _, value = codec.partition("=")
    settings = RecodeSettings(
        codec=("klt" if value else codec,),
        fidelity=(codec,) if measure in ("kl", "rel") else (),
        bits=(value,) if measure == "bits" else (),
        teacher=teacher,
    )
    convert_cache(source, folder / codec, codecs=new_codecs(source, folder / codec, settings))
    return folder / codec


def trained(settings: TrainSettings, exact: Path) -> dict[str, float]:
    """Train a student; return its held-out loss on its own cache, and on the exact states."""
    record = train(settings, resume=RunFolder(settings.run).exists())
    for checkpoint in settings.run.glob("checkpoints/*"):
        shutil.rmtree(checkpoint)
    device = choose_device(settings.device)
    model = LLMModulesForCausalLM.from_pretrained(
        RunFolder(settings.run).model, trust_remote_code=False
    ).eval()
    torch.nn.Module.to(model, device)
    with open_cache(exact) as cache:
        _, rows = rows_of(cache, settings)
        batches = DataLoader(
            WholeExamples(cache, rows, settings.layers_read),
            settings.batch_size,
            collate_fn=collate,
        )
        loss = validation_loss(
            model,
            batches,
            StatesDecoder([cache.codecs[layer] for layer in settings.layers_read]).to(device),
            device,
        )
    return {"own": record.result.best_val_loss, "exact": loss.loss}


def figures_of(
    losses: dict[str, list[dict[str, float]]], sizes: dict[str, dict[str, float]]
) -> list[dict[str, Any]]:
    """Return one object per codec: its size, and its losses relative to bf16 with the same seed."""
    plain = [loss["own"] for loss in losses["bf16"]]

    def against_exact(kind: str, codec: str) -> dict[str, Any]:
        percents = [
            100 * (loss[kind] / base - 1) for loss, base in zip(losses[codec], plain, strict=True)
        ]
        spread = statistics.stdev(percents) / len(percents) ** 0.5 if len(percents) > 1 else None
        return {
            "each_percent": percents,
            "percent": statistics.mean(percents),
            "standard_error": spread,
        }

    return [
        {
            "codec": codec,
            **sizes[codec],
            "losses": [loss["own"] for loss in losses[codec]],
            "own_states": against_exact("own", codec),
            "exact_states": against_exact("exact", codec),
        }
        for codec in losses
    ]


@click.command(help=__doc__)
@click.argument("cache_path", metavar="CACHE", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--codec",
    "codecs",
    multiple=True,
    default=CODECS,
    show_default=True,
    help="int8, or a requirement of klt; may be repeated.",
)
@click.option("--seeds", default=3, show_default=True)
@click.option("--max-steps", default=100, show_default=True)
@click.option("--batch-size", default=4, show_default=True)
@click.option("--learning-rate", default=2e-3, show_default=True)
@click.option("--student", default="tiny", show_default=True)
@click.option("--teacher", help="Current location of the cache's teacher.")
@click.option("--device", default="auto", show_default=True)
@json_option
def main(
    cache_path: Path,
    out: Path,
    codecs: tuple[str, ...],
    seeds: int,
    teacher: str | None,
    json_path: Path | None,
    max_steps: int,
    learning_rate: float,
    **options: Any,
) -> None:
    """Measure and print."""
    caches = {"bf16": cache_path} | {
        codec: converted(cache_path, out / "caches", codec, teacher) for codec in codecs
    }
    sizes = {}
    for codec, location in caches.items():
        with open_cache(location) as cache:
            sizes[codec] = {
                "bits_per_value": round(cache.bits_per_value[-1], 3),
                "bytes_per_token": cache.bytes / int(cache.lengths.sum()),
            }
    losses: dict[str, list[dict[str, float]]] = {codec: [] for codec in caches}
    for seed in range(seeds):
        for codec, location in caches.items():
            settings = TrainSettings(
                cache=location,
                run=out / "runs" / f"{codec}-{seed}",
                seed=seed,
                patience=0,
                bridge_lr=learning_rate,
                student_lr=learning_rate,
                epochs=1000,
                max_steps=max_steps,
                eval_every=max_steps,
                **options,
            )
            losses[codec].append(trained(settings, cache_path))
            click.echo(f"seed {seed} {codec}: {losses[codec][-1]}", err=True)
    figures = figures_of(losses, sizes)
    table = Table(
        title=(
            f"Students of {cache_path}, {seeds} seeds; loss relative to bf16 in percent, ± standard"
            " error"
        )
    )
    for heading in (
        "codec",
        "bits",
        "bytes per token",
        "losses",
        "on own states",
        "on exact states",
    ):
        table.add_column(heading, justify="left" if heading == "codec" else "right")
    for figure in figures:
        changes = [
            f"{change['percent']:+.3f}"
            + (f" ± {change['standard_error']:.3f}" if change["standard_error"] is not None else "")
            for change in (figure["own_states"], figure["exact_states"])
        ]
        shown = " ".join(f"{loss:.4f}" for loss in figure["losses"])
        table.add_row(
            figure["codec"],
            f"{figure['bits_per_value']:.3f}",
            f"{figure['bytes_per_token']:.1f}",
            shown,
            *changes,
        )
    Console(width=130).print(table)
    write_json(json_path, figures)


if __name__ == "__main__":
    main()
