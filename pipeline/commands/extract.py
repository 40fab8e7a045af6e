"""`extract`: the teacher's one pass."""

from __future__ import annotations

import re
from typing import Any

import click
import cloup

from cache.location import require_cache_location
from cache.names import CONTAINER_NAMES
from pipeline.choices import ENGINES
from pipeline.codec_fit.requirements import require_codec_options
from pipeline.commands.checks import require_data_set, require_teacher
from pipeline.commands.codec_options import codec_options
from pipeline.commands.config_file import options_as_yaml
from pipeline.commands.devices import require_device
from pipeline.commands.list_parameters import LayerList
from pipeline.commands.location_options import location_options
from pipeline.commands.shell import command
from pipeline.conditions.cached import CACHED_PARTS
from pipeline.data.files import FILE_KINDS
from pipeline.data.forms import FORM_NAMES
from pipeline.data.templates import TEMPLATE_NAMES
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.extract.engines.choose import engine_named
from pipeline.extract.settings import ExtractSettings
from pipeline.teacher.source import TEACHER_KINDS


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
        "--condition", type=click.Choice(tuple(CACHED_PARTS)), default="sequence", show_default=True,
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
    click.option(
        "--format", type=click.Choice(CONTAINER_NAMES), default="zarr", show_default=True,
        help="Container of the shards.",
    ),
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
@location_options("cache")
def extract(
    *,
    as_json: bool,
    plan: bool,
    engine_name: str,
    address: str | None,
    workers: int | None,
    **options: Any,
) -> dict[str, Any]:
    """Run the frozen teacher ONCE over a data set and write its hidden states to a cache.

    What is published is durable: after a crash, run the same command again and it goes on at the
    next shard. A cache of another teacher, data set or setting is refused, naming what differs.

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
    settings = ExtractSettings(**options, options=options_as_yaml())
    _look_at(settings)
    engine_named(engine_name, address=address, workers=workers)
    from pipeline.commands.running.extract import extract_or_plan

    return extract_or_plan(
        settings, engine_name, address=address, workers=workers, plan_only=plan, as_json=as_json
    )


def _look_at(settings: ExtractSettings) -> None:
    """Refuse what cannot be right, as far as it shows without transformers and torch.

    Raises:
        CacheError, InputError: says what, where and how to mend it.
    """
    settings.require_sense()
    require_device(settings.device)
    require_teacher(settings.teacher, settings.layers)
    require_data_set(settings.dataset)
    require_codec_options(
        settings.layers,
        codec=settings.codec,
        fidelity=settings.fidelity,
        bits=settings.bits,
    )
    if not settings.location.is_remote:
        require_cache_location(settings.location)
