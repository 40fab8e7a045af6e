"""`extract`: the teacher's one pass."""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import click
import cloup
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cache.formats import FORMAT_NAMES
from pipeline.choices import ENGINES, EXTRACT_CONDITIONS
from pipeline.commands.cache_places import cache_places
from pipeline.commands.codec_options import codec_options
from pipeline.commands.config_file import options_as_yaml
from pipeline.commands.counted import counted
from pipeline.commands.list_parameters import LayerList
from pipeline.commands.shell import command
from pipeline.data.files import FILE_KINDS
from pipeline.data.forms import FORM_NAMES
from pipeline.data.templates import TEMPLATE_NAMES
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.extract.engines.choose import choose_engine
from pipeline.extract.engines.interface import Engine
from pipeline.extract.forecast import Forecast, forecast
from pipeline.extract.prepare import PreparedExtract, prepare
from pipeline.extract.run import ExtractResult
from pipeline.extract.run import extract as run_extract
from pipeline.extract.settings import ExtractSettings
from pipeline.processes import leads
from pipeline.progress import TokenCount, progress_bar
from pipeline.teacher.source import TEACHER_KINDS

_SLOW_DISK = 0.05
"""Share of the time that the teacher may stand still for the disk before the progress line says so."""


def _teacher(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    return f"{name}:{EMBEDDED_TEACHER}" if re.fullmatch(r"random:\d+", name) else name


@cloup.command()
@cloup.option_group(
    "The job",
    click.option(
        "--teacher", default=EMBEDDED_TEACHER, callback=_teacher,
        help="Hub id, local folder, or .gguf file. random:SEED:T is a control: teacher T's shape and tokens, with random "
        "weights; random:SEED, those of the embedded one.  [default: the embedded one]",
    ),
    click.option(
        "--dataset", default=EMBEDDED_DATASET,
        help=f"Hub id; or a file, a folder of files or a quoted pattern of file names ({FILE_KINDS}).  [default: embedded]",
    ),
    click.option(
        "--cache", required=True, metavar="PLACE", help="Folder to write, or s3://bucket/prefix; an unfinished one is continued."
    ),
    click.option("--layers", type=LayerList(), default="-1", show_default=True, help="Teacher layers: 0 embeddings, -1 last."),
    click.option(
        "--condition", type=click.Choice(EXTRACT_CONDITIONS), default="sequence", show_default=True,
        help="What is read and cached: whole examples, or of each only what stands before its last answer, for a student that "
        "needs the teacher once.",
    ),
    click.option("--plan", is_flag=True, help="Only say what it will take: examples, exact bytes, disk, time. Writes nothing."),
)  # fmt: skip
@cloup.option_group(
    "Data set",
    click.option("--dataset-config", help="Configuration of a hub data set that has several, such as main."),
    click.option("--split", default="train", show_default=True, help="Split of a hub data set."),
    click.option("--form", type=click.Choice(FORM_NAMES), help="Form of the rows.  [default: told by the columns]"),
    click.option(
        "--template", type=click.Choice(TEMPLATE_NAMES), default="paper", show_default=True,
        help="Prompt template: the paper's, or the tokenizer's chat template.",
    ),
    click.option(
        "--loss-on", type=click.Choice(["assistant", "all"]), default="assistant", show_default=True,
        help="Tokens to learn: the assistant's with the end token, or all (the paper's way).",
    ),
    click.option(
        "--max-tokens", type=click.IntRange(min=2), default=4096, show_default=True,
        help="Leave longer examples out, and those that the teacher cannot read.",
    ),
    click.option("--limit", type=click.IntRange(min=1), help="Only the first so many rows."),
    click.option("--skip-bad-rows", is_flag=True, help="Leave out, and count, rows that cannot be used instead of stopping."),
    click.option(
        "--group-by", metavar="COLUMN",
        help="Column that names each row's group, which `train` never splits; copies of a row are always kept together.",
    ),
)  # fmt: skip
@cloup.option_group(
    "What is stored, and how",
    click.option("--format", type=click.Choice(FORMAT_NAMES), default="zarr", show_default=True, help="Container of the shards."),
    click.option(
        "--sharing/--no-sharing", default=True, show_default=True,
        help="Compute and store leading tokens that examples share, and duplicates, once.",
    ),
    click.option(
        "--keep-head", is_flag=True,
        help="Keep the LM head's rows of the tokens that occur, too: for train --head-init teacher and --distill, and for the "
        "baseline distilled.",
    ),
    click.option("--shard-tokens", type=click.IntRange(min=1), default=65536, show_default=True, help="Tokens of a shard."),
)  # fmt: skip
@codec_options("bf16")
@cloup.option_group(
    "The teacher's pass",
    click.option(
        "--teacher-kind", type=click.Choice(TEACHER_KINDS), default="decoder", show_default=True,
        help="encoder: a model such as BERT, whose states of a token know the whole text; students of it are marked as leaking.",
    ),
    click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, …"),
    click.option("--dtype", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True, help="Compute type."),
    click.option(
        "--batch-tokens", type=click.IntRange(min=1),
        help="Most tokens of a teacher batch.  [default: 4096 on a CPU, 32768 on other devices, halved when memory runs out]",
    ),
    click.option(
        "--skip-non-finite", is_flag=True, help="Leave out, and count, rows for which the teacher gives NaN or infinity."
    ),
)  # fmt: skip
@cloup.option_group(
    "Many processes",
    click.option(
        "--engine", "engine_name", type=click.Choice(ENGINES), default="auto", show_default=True,
        help="Who runs the teacher: this process, Ray actors on one machine or many, or the ranks that torchrun has started; the "
        "cache's folder is one that all of them see. auto: torchrun where it has started this process, else local.",
    ),
    click.option(
        "--address", help="With --engine ray: the cluster, such as auto or ray://host:10001.  [default: start one here]"
    ),
    click.option("--workers", type=click.IntRange(min=1), help="With --engine ray.  [default: one a GPU, or one in all]"),
)  # fmt: skip
@command
@cache_places("cache")
def extract(
    *, as_json: bool, plan: bool, engine_name: str, address: str | None, workers: int | None, **options: Any
) -> dict[str, Any]:
    """Run the frozen teacher ONCE over a data set and write its hidden states to a cache.

    What is published is durable: after a crash, run the same command again and it goes on at the next shard. A cache of
    another teacher, data set or setting is refused, naming what differs.

    \b
    Examples:
      llm-modules extract --cache my-cache
      llm-modules extract --teacher Qwen/Qwen2-1.5B --dataset rows.jsonl --cache my-cache --layers -1,0 --plan
      llm-modules extract --teacher model.gguf --dataset rows.parquet --cache my-cache --format hdf5
      llm-modules extract --teacher Qwen/Qwen2-1.5B --dataset rows.jsonl --cache my-cache --codec klt --fidelity kl=0.01
      llm-modules extract --teacher Qwen/Qwen2-1.5B --dataset rows.jsonl --cache my-cache --condition prompt
      llm-modules extract --teacher Qwen/Qwen2-1.5B --dataset rows.jsonl --cache my-cache --engine ray --workers 4
      llm-modules extract --teacher Qwen/Qwen2-1.5B --dataset rows.jsonl --cache s3://bucket/my-cache
      torchrun --nproc-per-node 4 cli.py extract --teacher Qwen/Qwen2-1.5B --dataset rows.jsonl --cache my-cache
    """
    prepared = prepare(ExtractSettings(**options, options=options_as_yaml()))
    if plan:
        if not leads():
            raise SystemExit(0)
        return _plan(prepared, as_json=as_json)
    with choose_engine(prepared, engine_name, address=address, workers=workers) as engine:
        if not engine.leads:
            engine.follow()
            raise SystemExit(0)  # what there is to say, the leading process says
        result = _run(prepared, engine)
    if not as_json:
        click.echo(_in_words(result))
    return asdict(result)


def _run(prepared: PreparedExtract, engine: Engine) -> ExtractResult:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TokenCount(),
        TextColumn("{task.fields[beside]}"),
        TimeRemainingColumn(),
    )
    with progress_bar(*columns) as bar:
        calibrating = bar.add_task("calibrate", total=None, visible=False, beside="")
        task = bar.add_task("extract", total=prepared.manifest.tokens, beside="")
        done = {"shards": 0, "bytes": 0, "waited": 0.0}
        began = time.perf_counter()

        def advance(tokens: int = 0, *, shards: int = 0, size: int = 0, waited: float = 0.0) -> None:
            done["shards"] += shards
            done["bytes"] += size
            done["waited"] += waited
            beside = f"{done['shards']}/{prepared.manifest.shards} shards  {done['bytes'] / 1e6:,.1f} MB"
            if done["waited"] > _SLOW_DISK * (time.perf_counter() - began):
                beside += f"  the disk is slower than the teacher: waited {done['waited']:.0f} s"
            bar.update(task, advance=tokens, beside=beside)

        def calibrated(what: str, done: int, total: int) -> None:
            bar.update(calibrating, description=what, completed=done, total=total or None, visible=done < total)

        return run_extract(prepared, advance, calibrated, engine)


def _plan(prepared: PreparedExtract, *, as_json: bool) -> dict[str, Any]:
    with progress_bar(TextColumn("plan: {task.description}"), TimeElapsedColumn()) as bar:
        task = bar.add_task("")
        expected = forecast(prepared, lambda what: bar.update(task, description=what))
    if not as_json:
        click.echo(_forecast_in_words(prepared, expected))
    return asdict(expected)


def _forecast_in_words(prepared: PreparedExtract, expected: Forecast) -> str:
    settings = prepared.settings
    left_out = ", ".join(f"{count} {reason}" for reason, count in expected.left_out.items()) or "none"
    lines = [
        f"{expected.cache}: {counted(expected.examples, 'example')}, {counted(expected.tokens, 'token')} in "
        f"{counted(expected.shards, 'shard')}, "
        f"{expected.missing_shards} of them still to be written; {expected.stored_tokens:,} tokens to be computed and stored",
        f"left out: {left_out}",
        *([f"nothing is shared: {expected.unshared}"] if expected.unshared else []),
        *(
            f"{'->' if (container, codec) == (settings.format, prepared.manifest.codec) else '  '} {container} {codec}: "
            f"{'about ' if codec in expected.approximate else ''}{size:,} bytes"
            for container, sizes in expected.bytes.items()
            for codec, size in sizes.items()
        ),
        f"disk: {expected.free_bytes / 1e9:,.2f} GB free, {expected.needed_bytes / 1e9:,.2f} GB needed"
        f" - {'it fits' if expected.fits else 'TOO LITTLE, extract will refuse to start'}",
    ]
    if expected.tokens_per_second:
        lines.append(
            f"time: about {timedelta(seconds=round(expected.seconds))} at {expected.tokens_per_second:,.0f} tokens/s "
            f"({expected.compute_dtype} on {expected.device}; measured on {expected.probe_tokens:,} tokens), "
            f"and {expected.load_seconds:.0f} s to load the teacher"
        )
    return "\n".join(lines)


def _in_words(result: ExtractResult) -> str:
    left_out = ", ".join(f"{count} {reason}" for reason, count in result.left_out.items()) or "none"
    speed = "all shards were already there" if result.tokens_per_second is None else f"{result.tokens_per_second:,.0f} tokens/s"
    return (
        f"{result.cache}: {counted(result.examples, 'example')}, {counted(result.tokens, 'token')} "
        f"({result.stored_tokens:,} stored) in {counted(result.shards, 'shard')} ({result.resumed_shards} from before), "
        f"{result.bytes / 1e6:,.1f} MB\n"
        f"left out: {left_out}\n{_unread(result.unread)}"
        + (f"nothing is shared: {result.unshared}\n" if result.unshared else "")
        + f"{result.seconds:.1f} s, {speed}; content digest {result.content_digest[:16]}…"
    )


def _unread(fields: dict[str, int]) -> str:
    """A line about columns and message fields with content that nothing reads."""
    named = ", ".join(f"{field} ({counted(rows, 'row')})" for field, rows in fields.items())
    return f"not read: {named}\n" if named else ""
