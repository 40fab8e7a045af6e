"""`train`: train a student from a cache."""

from __future__ import annotations

from typing import Any

import click
import cloup

from cache.storage import StorageLocation
from pipeline.commands.checks import require_cache, require_student
from pipeline.commands.devices import require_device
from pipeline.commands.list_parameters import LayerList
from pipeline.commands.location_options import location_options
from pipeline.commands.options_from import option_section
from pipeline.commands.shell import command
from pipeline.commands.train_options import train_options, train_settings
from pipeline.option import CACHE_LOCATION
from pipeline.processes import is_main_process
from pipeline.runs.comparisons import CONTROLS, RANDOM_TEACHER
from pipeline.runs.folder import RunFolder
from pipeline.runs.resume import is_begun
from pipeline.runs.settings import TrainSettings


@cloup.command()
@option_section(
    "The run",
    TrainSettings,
    click.option(
        "--resume",
        is_flag=True,
        help="Continue a stopped run from its last checkpoint, or start it if there is none.",
    ),
)
@train_options
@cloup.option_group(
    "Controls",
    click.option(
        "--controls",
        is_flag=True,
        help=(f"After the student, train the controls {' and '.join(CONTROLS)} for as many steps."),
    ),
    click.option(
        "--control-layers",
        type=LayerList(),
        help="After the student, train a control on each of these layers of the cache.",
    ),
    click.option(
        "--random-teacher",
        metavar=CACHE_LOCATION,
        help="After the student, train a control on this cache of extract --teacher random:SEED:T.",
    ),
)
@command
@location_options("cache", "random_teacher")
def train(
    *,
    as_json: bool,
    controls: bool,
    control_layers: tuple[int, ...] | None,
    random_teacher: StorageLocation | None,
    resume: bool,
    **options: Any,
) -> dict[str, Any]:
    """Train a student (Enhanced Cross-Attention and a decoder) from a cache. The teacher is never
    loaded.

    Optimiser, epochs and bridge are the paper's by default; the paper's student is 125m. With
    --controls, evaluate can show what comes from the teacher; that needs layer 0 in the cache
    (extract --layers -1,0).

    \b
    Examples:
      llm-modules train --cache my-cache --run my-run --controls
      llm-modules train --cache my-cache --run my-run --student EleutherAI/gpt-neo-125m
      llm-modules train --cache my-cache --run my-run --controls --control-layers 12
      llm-modules train --cache my-cache --run my-run --batch-tokens 4096
      llm-modules train --cache my-cache --run my-run --vocab dataset --layers 12,-1
      llm-modules train --cache my-prompts --run my-run --condition prompt --student small
      llm-modules train --cache my-prompts --run my-run --condition prompt --student x.gguf --lora 8
      llm-modules train --cache my-cache --run my-run --resume
      torchrun --nproc-per-node 2 -- cli.py train --cache my-cache --run my-run
    """
    settings = train_settings(options)
    names = [
        *(settings.conditioning.controls if controls else ()),
        *(f"layer-{layer}" for layer in control_layers or ()),
    ]
    names += [RANDOM_TEACHER] if random_teacher is not None else []
    require_device(settings.device)
    settings.require_comparisons(names)
    require_student(settings.student)
    if manifest := require_cache(options["cache"]):
        settings.require_states_of(options["cache"].address, manifest)
    settings.require_sense()
    require_cache(random_teacher)
    if is_main_process():  # else the leading process may have begun it a moment ago
        is_begun(RunFolder(settings.run), resume=resume)
    from pipeline.commands.running.train import train_and_report

    return train_and_report(
        settings, list(dict.fromkeys(names)), random_teacher, resume=resume, as_json=as_json
    )
