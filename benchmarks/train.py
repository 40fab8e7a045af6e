"""Ways to train the same student on the same rows, side by side: the published code's, this
project's, and features in RAM.

Run `python benchmarks/train.py [--teacher T --dataset D] [--limit N] [--student S] [--rounds N]
[--way W …] [--json FILE]`.

- published: the whole teacher with its LM head and all layers' states, live; one example a step,
    its logits whole
- online: this project's trainer and batches, the teacher's body live
- cache, batch 1: this trainer from a bf16 cache, one example a step like the published way
- cache bf16, cache klt: in batches of `--batch-tokens`, from a cache
- RAM: the same batches, features already in memory (the limit)
- …, vocab dataset: with a head over the tokens that occur in the rows
- …, bf16: in automatic mixed precision

A process each, in turns; the best round counts. Tokens are counted from the end of the first step
to the end of the last. Memory is the most that the process held while it trained, everything
included. `job` is the whole job in 15 epochs, extract included where there is a cache, from the
speeds measured here; against the published way's."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import (
    AutoModelForCausalLM,
    GgufConfig,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
)

from cache import open_cache
from pipeline.batches.loader import CachedBatches
from pipeline.device import DTYPES, choose_device, choose_dtype
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.extract.plan import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.labels import IGNORE
from pipeline.processes import Share
from pipeline.runs.settings import TrainSettings
from pipeline.teacher.load import load_teacher
from pipeline.teacher.model import Teacher
from pipeline.teacher.source import find_teacher
from pipeline.training.prepare import PreparedRun, prepare_run
from pipeline.training.trainer import StudentTrainer

EPOCHS = 15


@dataclass(frozen=True)
class Way:
    """Which cache a way reads (the published way and `online` only its tokens), and how it
    trains."""

    cache: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    live: bool = False
    in_memory: bool = False


WAYS = {
    "published": Way("bf16", live=True),
    "online": Way("bf16", {"batch_tokens": 0}, live=True),
    "cache, batch 1": Way("bf16"),
    "cache bf16": Way("bf16", {"batch_tokens": 0}),
    "cache klt": Way("klt", {"batch_tokens": 0}),
    "RAM": Way("bf16", {"batch_tokens": 0}, in_memory=True),
    "cache klt, vocab dataset": Way("klt", {"batch_tokens": 0, "vocab": "dataset"}),
    "cache klt, bf16": Way("klt", {"batch_tokens": 0, "precision": "bf16"}),
    "cache klt, vocab dataset, bf16": Way(
        "klt", {"batch_tokens": 0, "vocab": "dataset", "precision": "bf16"}
    ),
}


class Clock(TrainerCallback):
    """Seconds and tokens at the end of the first step and at that of the last."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the time of the first."""
        if not self.marks:
            self._note(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the time."""
        self._note(state)

    def _note(self, state: Any) -> None:
        self.marks.append((time_when_done(), state.num_input_tokens_seen))


def time_when_done() -> float:
    """The time at which the device has done all that it was told to."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


class InMemory(Dataset[Any]):
    """Features that have all been read before."""

    is_remote = False

    def __init__(self, features: Any) -> None:
        self._items = [features[index] for index in range(len(features))]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        return self._items[index]


class LiveStates(torch.nn.Module):
    """In the place of a decoder: a live teacher reads the tokens of each batch."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self._teacher = [teacher]  # in a list: no part of this module

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The batch with the last layer's states."""
        states = self._teacher[0].hidden_states(batch["input_ids"], batch["attention_mask"])[-1]
        return batch | {"hidden_states": states.to(torch.bfloat16).clone()}


def published(
    run: PreparedRun, teacher_name: str, device: torch.device, steps: int
) -> list[tuple[float, int]]:
    """The published code's loop: an example a step, the teacher whole, the logits whole."""
    source = find_teacher(teacher_name)
    kind: dict[str, Any] = (
        {"quantization_config": GgufConfig(dequantize=True)} if source.is_gguf else {}
    )
    dtype = DTYPES[choose_dtype("auto", device)]
    teacher = (
        AutoModelForCausalLM.from_pretrained(
            source.location, dtype=dtype, trust_remote_code=False, **kind, **source.options
        )
        .eval()
        .to(device)
    )
    model = torch.nn.Module.to(run.model, device).train()
    marks: list[tuple[float, int]] = []
    tokens = 0
    for _, batch in zip(range(steps), run.training, strict=False):
        batch = {name: values.to(device) for name, values in batch.items()}
        with torch.no_grad():
            states = teacher(batch["input_ids"], output_hidden_states=True).hidden_states[-1]
        logits = model(hidden_states=states.float(), attention_mask=batch["attention_mask"]).logits
        loss = cross_entropy(logits[0, :-1].float(), batch["labels"][0, 1:], ignore_index=IGNORE)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        run.optimizer.step()
        run.optimizer.zero_grad()
        tokens += batch["input_ids"].numel()
        marks = marks or [(time_when_done(), tokens)]
    return [*marks, (time_when_done(), tokens)]


def measure(name: str, folder: Path, options: dict[str, Any]) -> dict[str, float]:
    """Train one way in this process."""
    way, device = WAYS[name], choose_device(options["device"])
    changes = {
        key: options["batch_tokens"] if key == "batch_tokens" else value
        for key, value in way.settings.items()
    }
    with tempfile.TemporaryDirectory() as scratch, open_cache(folder / way.cache) as cache:
        settings = TrainSettings(
            folder / way.cache,
            Path(scratch) / "run",
            student=options["student"],
            device=options["device"],
            validation=0.05,
            **changes,
        )
        run = prepare_run(cache, settings, Share())
        steps = (
            options["steps"]
            if name in ("published", "cache, batch 1")
            else len(run.training) * options["passes"]
        )
        if name == "published":
            marks, waited = published(run, options["teacher"], device, steps), 0.0
        else:
            marks, waited = trained(run, way, options, steps)
    (began, before), (ended, after) = marks[0], marks[-1]
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    return {
        "tokens_per_second": (after - before) / (ended - began),
        "megabytes": peak,
        "loader_wait_share": waited,
    }


def trained(
    run: PreparedRun, way: Way, options: dict[str, Any], steps: int
) -> tuple[list[tuple[float, int]], float]:
    """This project's trainer, without validation and checkpoints."""
    clock, waits = Clock(), []
    arguments = run.arguments
    arguments.max_steps, arguments.logging_steps = steps, max(1, steps // 2)
    arguments.save_strategy = arguments.eval_strategy = "no"
    arguments.load_best_model_at_end = False
    if way.in_memory:
        run = replace(
            run, training=CachedBatches(InMemory(run.training.dataset), run.training.batch_sampler)
        )
    decoder: Any = run.decoder
    if way.live:
        device = choose_device(options["device"])
        decoder = LiveStates(
            load_teacher(
                find_teacher(options["teacher"]), [-1], device, choose_dtype("auto", device)
            )
        )

    class Trainer(StudentTrainer):
        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            super().log(logs, start_time)
            waits.extend([logs["loader_wait_share"]] if "loader_wait_share" in logs else [])

    trainer = Trainer(
        run.model, arguments, training=run.training, validation=run.validation, decoder=decoder,
        optimizers=(run.optimizer, None), callbacks=[clock],
    )  # fmt: skip
    for default in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(default)
    trainer.train()
    return clock.marks, sum(waits) / max(1, len(waits))


def make_caches(folder: Path, options: dict[str, Any]) -> dict[str, float]:
    """Extract the rows exactly, and as klt; tokens a second of each."""
    speeds = {}
    for name, codec in {"bf16": ("bf16", None), "klt": ("klt", "kl=0.01")}.items():
        settings = ExtractSettings(
            options["teacher"], options["dataset"], folder / name, limit=options["limit"], device=options["device"],
            **({} if codec[1] is None else {"codec": (codec[0],), "fidelity": (codec[1],)}),
        )  # fmt: skip
        speeds[name] = float(extract(prepare(settings)).tokens_per_second or 0)
    return speeds


def job_seconds(way: str, speed: float, tokens: int, extracts: dict[str, float]) -> float:
    """Seconds of all epochs, and of the extract before them where the way needs one."""
    first = 0.0 if WAYS[way].live else tokens / extracts[WAYS[way].cache]
    return first + EPOCHS * tokens / speed


@click.command(help=__doc__)
@click.option("--teacher", default=EMBEDDED_TEACHER, help="[default: the embedded one]")
@click.option("--dataset", default=EMBEDDED_DATASET, help="[default: embedded]")
@click.option("--limit", default=200, show_default=True, help="Rows.")
@click.option("--student", default="tiny", show_default=True)
@click.option(
    "--steps", default=20, show_default=True, help="Steps of the ways that take one example a step."
)
@click.option("--passes", default=1, show_default=True, help="Passes over the rows of the others.")
@click.option("--batch-tokens", default=4096, show_default=True)
@click.option("--rounds", default=2, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--way",
    "ways",
    multiple=True,
    type=click.Choice(list(WAYS)),
    help="Only this one; may be repeated.",
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here, too."
)
def main(rounds: int, ways: tuple[str, ...], json_path: Path | None, **options: Any) -> None:
    """Measure and print."""
    best: dict[str, dict[str, float]] = {}
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ProcessPoolExecutor(1, context) as process:
            extracts = process.submit(make_caches, folder, options).result()
        with open_cache(folder / "bf16") as cache:
            tokens = int(cache.lengths.sum())
        for number in range(rounds):
            for way in ways or WAYS:
                if way == "published" and number:
                    continue
                with ProcessPoolExecutor(1, context) as process:
                    found = process.submit(measure, way, folder, options).result()
                click.echo(f"{way}: {found}", err=True)
                if way not in best or found["tokens_per_second"] > best[way]["tokens_per_second"]:
                    best[way] = found
    figures = []
    published_job = (
        job_seconds("published", best["published"]["tokens_per_second"], tokens, extracts)
        if "published" in best
        else None
    )
    for way, found in best.items():
        job = job_seconds(way, found["tokens_per_second"], tokens, extracts)
        figures.append(
            {"way": way, **found}
            | {
                "of_ram": (
                    found["tokens_per_second"] / best["RAM"]["tokens_per_second"]
                    if "RAM" in best
                    else None
                )
            }
            | {
                "job_hours": job / 3600,
                "job_times_faster": published_job / job if published_job else None,
            }
        )
    source, teacher = Path(options["dataset"]).name, Path(options["teacher"]).name
    table = Table(
        title=f"{tokens:,} tokens of {source}, teacher {teacher}, student {options['student']}"
    )
    for heading in (
        "way",
        "tokens/s",
        "of RAM",
        "waits for batches",
        "memory, MB",
        f"{EPOCHS} epochs, h",
        "times faster",
    ):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for figure in figures:
        table.add_row(
            figure["way"], f"{figure['tokens_per_second']:,.1f}", _number(figure["of_ram"]), f"{figure['loader_wait_share']:.2%}",
            f"{figure['megabytes']:,.0f}", f"{figure['job_hours']:.3f}", _number(figure["job_times_faster"]),
        )  # fmt: skip
    Console(width=130).print(table)
    if json_path:
        json_path.write_text(
            json.dumps({"extract_tokens_per_second": extracts, "ways": figures}, indent=1) + "\n"
        )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
