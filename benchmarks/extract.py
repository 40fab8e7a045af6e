"""Ways to get hidden states out of a teacher, side by side: the published code's, a simpler one,
this project's, the limit.

Run `python benchmarks/extract.py [--teacher T --dataset D] [--limit N] [--rounds N] [--way W …]
[--json FILE]`. All read the same rows with the same weights in the same type. The ways:

- published: the whole model with its LM head, all layers' states kept, one example at a time, a
    file an example
- body: the body without LM head, the last layer kept, one example at a time, a file an example
- packed: the batches and shared prefixes of `extract`, and nothing is written (the limit)
- extract: the whole of it: packed, coded, written, journaled
- extract, a tenth: the same of a tenth of the rows: what grows with the data set is seen beside it

Each measurement is a process of its own; the ways alternate, all in the same number of rounds, and
are compared by medians. Weights are loaded and rows tokenised before the clock starts. Tokens of
shared prefixes count once per example. Memory is the peak, less that before the first row."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table
from rounds import alternate, medians
from transformers import AutoModel, AutoModelForCausalLM, GgufConfig

from pipeline.device import DTYPES, choose_device, choose_dtype
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.extract.engines.local import LocalEngine
from pipeline.extract.plan import ExtractPlan
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.extract.worker import ShardWorker


def one_at_a_time(whole: bool) -> Callable[[ExtractPlan], Callable[[], None]]:
    """One example a forward pass, a file an example; the whole model with all layers, or its body
    with the last one."""

    def begin(prepared: ExtractPlan) -> Callable[[], None]:
        source, device = prepared.source, choose_device(prepared.settings.device)
        dtype = DTYPES[choose_dtype(prepared.settings.dtype, device)]
        kind = {"quantization_config": GgufConfig(dequantize=True)} if source.is_gguf else {}
        model = (AutoModelForCausalLM if whole else AutoModel).from_pretrained(
            source.location, dtype=dtype, trust_remote_code=False, **kind, **source.options
        )
        model = model.eval().to(device)
        folder = prepared.settings.cache
        folder.mkdir(parents=True)

        @torch.inference_mode()
        def run() -> None:
            for number, example in enumerate(prepared.dataset.examples):
                ids = torch.from_numpy(example.input_ids.astype("int64"))[None].to(device)
                if whole:
                    states = model(ids, output_hidden_states=True).hidden_states[-1]
                else:
                    states = model(ids, use_cache=False).last_hidden_state
                torch.save(states[0].cpu(), folder / f"{number}.pt")

        return run

    return begin


def packed(prepared: ExtractPlan) -> Callable[[], None]:
    """Read all shards and let go of them."""
    worker = ShardWorker(prepared.work())
    worker.load()

    def run() -> None:
        for shard in range(len(prepared.shards)):
            worker.read(shard, ())

    return run


def whole_extract(prepared: ExtractPlan) -> Callable[[], None]:
    """All of it."""
    engine = LocalEngine(prepared)
    engine.load()

    def run() -> None:
        extract(prepared, engine=engine)

    return run


WAYS: dict[str, Callable[[ExtractPlan], Callable[[], None]]] = {
    "published": one_at_a_time(True),
    "body": one_at_a_time(False),
    "packed": packed,
    "extract": whole_extract,
    "extract, a tenth": whole_extract,
}


def measure(way: str, settings: ExtractSettings) -> dict[str, float]:
    """Seconds and memory of one way, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(replace(settings, cache=Path(folder) / "c"))
        run = WAYS[way](prepared)
        before, most, ended = resident(), [0.0], threading.Event()

        def watch() -> None:
            while not ended.wait(0.02):
                most[0] = max(most[0], resident())

        watching = threading.Thread(target=watch)
        watching.start()
        began = time.perf_counter()
        run()
        seconds = time.perf_counter() - began
        ended.set()
        watching.join()
    return {"seconds": seconds, "tokens": prepared.manifest.tokens, "megabytes": most[0] - before}


def in_process(way: str, settings: ExtractSettings) -> dict[str, float]:
    """Measure one way in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, way, settings).result()


def resident() -> float:
    """Megabytes of memory that this process alone holds."""
    status = Path("/proc/self/status").read_text()
    return (
        next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))
        / 1024
    )


@click.command(help=__doc__)
@click.option("--teacher", default=EMBEDDED_TEACHER, help="[default: the embedded one]")
@click.option("--dataset", default=EMBEDDED_DATASET, help="[default: embedded]")
@click.option("--limit", default=600, show_default=True, help="Rows.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--way",
    "ways",
    type=click.Choice(list(WAYS)),
    multiple=True,
    help="Only these ways.  [default: all]",
)
@click.option("--shard-tokens", default=65536, show_default=True, help="Tokens of a shard.")
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here, too."
)
def main(
    teacher: str,
    dataset: str,
    limit: int,
    rounds: int,
    ways: tuple[str, ...],
    json_path: Path | None,
    **options: Any,
) -> None:
    """Measure and print."""
    settings = ExtractSettings(
        teacher=teacher, dataset=dataset, cache=Path("unused"), limit=limit, **options
    )
    tenth = replace(settings, limit=max(1, limit // 10))
    measured = alternate(
        {
            way: partial(in_process, way, tenth if way.endswith("tenth") else settings)
            for way in ways or WAYS
        },
        rounds,
    )
    figures: list[dict[str, Any]] = []
    for way, own in measured.items():
        figure = {"way": way, **medians(own), "rounds": own}
        figure["tokens"] = own[0]["tokens"]
        figure["tokens_per_second"] = figure["tokens"] / figure["seconds"]
        figures.append(figure)
    speeds = {figure["way"]: figure["tokens_per_second"] for figure in figures}
    for figure in figures:
        for other in {"published", "packed"} & {*speeds}:
            figure[f"of_{other}"] = figure["tokens_per_second"] / speeds[other]
    table = Table(title=f"{limit} rows of {Path(dataset).name}, teacher {Path(teacher).name}")
    for heading in (
        "way",
        "tokens",
        "seconds",
        "tokens/s",
        "of published",
        "of packed",
        "memory, MB",
    ):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for figure in figures:
        table.add_row(
            figure["way"], f"{figure['tokens']:,}", f"{figure['seconds']:.2f}", f"{figure['tokens_per_second']:,.0f}",
            *(f"{figure[of]:.2f}" if of in figure else "" for of in ("of_published", "of_packed")), f"{figure['megabytes']:,.0f}",
        )  # fmt: skip
    Console(width=130).print(table)
    if json_path:
        json_path.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
