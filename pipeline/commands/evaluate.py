"""`evaluate`: what was transferred."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import cloup

from cache.storage import StorageLocation, storage_location
from pipeline.commands.checks import require_cache, require_data_set, require_teacher
from pipeline.commands.devices import require_device
from pipeline.commands.list_parameters import NameList
from pipeline.commands.location_options import location_options
from pipeline.commands.shell import command
from pipeline.errors import InputError
from pipeline.evaluation.compare import compare as compare_runs
from pipeline.evaluation.settings import TEACHER, EvaluateSettings, no_cache
from pipeline.runs.comparisons import BASELINES
from pipeline.runs.folder import RunFolder
from pipeline.scoring.choose import SCORE_NAMES


def _own_location(given: dict[str, Any]) -> StorageLocation | None:
    return (
        None
        if given["compare"] or given["run"] is None
        else RunFolder(given["run"]).require_finished().cache_location
    )


@cloup.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="[R1 R2 …]")
@cloup.option_group(
    "What is evaluated",
    click.option("--run", type=click.Path(path_type=Path), help="A finished run."),
    click.option(
        "--baselines",
        type=NameList(),
        default="",
        metavar="NAMES",
        help=(
            "Compare with these too, and train those first that are not there:"
            f" {', '.join((TEACHER, *BASELINES))}; or all."
        ),
    ),
    click.option(
        "--compare", is_flag=True, help="Set evaluated runs R1 R2 … side by side instead."
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        help="Folder for what --compare writes.  [default: comparison]",
    ),
)
@cloup.option_group(
    "Prompts to answer",
    click.option(
        "--samples",
        type=click.IntRange(min=0),
        default=100,
        show_default=True,
        help="Prompts to answer (0: none).",
    ),
    click.option(
        "--score",
        default="auto",
        show_default=True,
        metavar="NAME",
        help=(
            f"How answers are compared with the data set's own: {', '.join(SCORE_NAMES)} (auto:"
            " chosen from these), or module:function of your own, which gives 0 to 1 for an answer"
            " and its reference."
        ),
    ),
    click.option(
        "--dataset", help="Answer the prompts of another data set.  [default: the validation rows]"
    ),
    click.option(
        "--dataset-config", help="Configuration of that data set, where the hub has several."
    ),
    click.option(
        "--split", default="test", show_default=True, help="Split of that data set on the hub."
    ),
    click.option(
        "--max-new-tokens",
        type=click.IntRange(min=1),
        default=256,
        show_default=True,
        help="Longest answer.",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=16,
        show_default=True,
        help="Prompts answered at a time.",
    ),
)
@cloup.option_group(
    "Tasks of lm-evaluation-harness",
    click.option(
        "--task",
        "tasks",
        multiple=True,
        help="Also a task of lm-evaluation-harness, such as gsm8k; may be repeated.",
    ),
    click.option(
        "--task-path",
        type=click.Path(exists=True, path_type=Path),
        help="Folder with tasks of your own.",
    ),
    click.option("--task-limit", type=click.IntRange(min=1), help="Most documents of a task."),
)
@cloup.option_group(
    "Machine, and what has moved",
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda"),
    click.option("--cache", metavar="PLACE", help="Its cache, where that has moved."),
    click.option(
        "--random-teacher",
        metavar="PLACE",
        help="The cache of its control of that name, where that has moved.",
    ),
    click.option("--teacher", help="Its teacher, where that has moved."),
)
@command
@location_options("cache", "random_teacher", otherwise=_own_location)
def evaluate(
    *,
    as_json: bool,
    runs: tuple[Path, ...],
    run: Path | None,
    compare: bool,
    out: Path | None,
    **options: Any,
) -> dict[str, Any]:
    """Measure a run, its controls and baselines on rows held out; write evaluation/results.json,
    report.html and pictures.

    Losses come from the cache, each with its interval over rows, and with the states changed:
    another example's, in random order, none, gates shut. Prompts are answered greedily, with the
    teacher live where the student needs it, and scored against the data set's own (--score), by
    form, stopping and repetition.

    \b
    Examples:
      llm-modules evaluate --run my-run
      llm-modules evaluate --run my-run --baselines teacher,distilled
      llm-modules evaluate --run my-run --baselines all --task gsm8k
      llm-modules evaluate --run my-run --dataset new-rows.jsonl --samples 500
      llm-modules evaluate --compare run-a run-b run-c
    """
    if compare:
        if len(runs) < 2 or run is not None:
            raise InputError("--compare: name at least two evaluated runs after it, and no --run")
        comparison = compare_runs(runs)
        from pipeline.commands.running.compare import write_and_print

        write_and_print(comparison, out or Path("comparison"), as_json=as_json)
        return comparison.to_json()
    if run is None or runs or out:
        raise InputError(
            "name one run with --run, or several after --compare (which --out goes with)"
        )
    settings = EvaluateSettings(run=run, **options)
    _look_at(settings)
    from pipeline.commands.running.evaluate import run_evaluation

    return run_evaluation(settings, as_json=as_json).to_json()


def _look_at(settings: EvaluateSettings) -> None:
    """Refuse what cannot be right, as far as it shows without transformers and torch.

    Raises:
        CacheError, InputError: says what, where and how to mend it.
    """
    settings.require_sense()
    recorded = RunFolder(settings.run).require_finished().settings
    require_device(settings.device)
    needs_teacher = settings.samples and recorded.conditioning.needs_live_teacher
    require_teacher(settings.teacher if needs_teacher else None)
    require_data_set(settings.dataset)
    for option, where in (
        ("--cache", settings.cache),
        ("--random-teacher", settings.random_teacher),
    ):
        location = None if where is None else storage_location(where)
        if location is not None and not location.is_remote and not location.top_level_names():
            raise no_cache(location, option)
        require_cache(location)
