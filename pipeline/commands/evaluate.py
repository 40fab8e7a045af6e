"""`evaluate`: measure what was transferred."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import cloup

from cache.storage import StorageLocation, storage_location
from pipeline.commands.checks import require_cache, require_data_set, require_teacher
from pipeline.commands.devices import require_device
from pipeline.commands.location_options import location_options
from pipeline.commands.options_from import option_section
from pipeline.commands.shell import command
from pipeline.errors import InputError
from pipeline.evaluation.compare import compare as compare_runs
from pipeline.evaluation.settings import (
    EvaluateSettings,
    HarnessOptions,
    LocationOptions,
    PromptOptions,
    no_cache,
)
from pipeline.runs.folder import RunFolder


def _recorded_location(parameters: dict[str, Any]) -> StorageLocation | None:
    """Return where the run says its cache is; None with --compare."""
    if parameters["compare"] or parameters["run"] is None:
        return None
    return RunFolder(parameters["run"]).require_finished().cache_location


@cloup.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="[R1 R2 …]")
@cloup.option_group(
    "What is evaluated",
    click.option(
        "--run", type=click.Path(path_type=Path), help="A finished run; required unless --compare."
    ),
    click.option("--compare", is_flag=True, help="Compare evaluated runs R1 R2 … instead."),
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        help="Folder for the output of --compare.  [default: comparison]",
    ),
)
@option_section("Baselines", EvaluateSettings)
@option_section("Prompts to answer", PromptOptions)
@option_section("Tasks of lm-evaluation-harness", HarnessOptions)
@option_section("Device and relocated paths", LocationOptions)
@command
@location_options("cache", "random_teacher", otherwise=_recorded_location)
def evaluate(
    *,
    as_json: bool,
    runs: tuple[Path, ...],
    run: Path | None,
    compare: bool,
    out: Path | None,
    **options: Any,
) -> dict[str, Any]:
    """Measure a run, its controls and baselines on held-out rows; write evaluation/results.json,
    report.html and pictures.

    Losses come from the cache, with intervals over rows. Ablations repeat them with other states:
    another example's, in random order, none, or with gates shut. Prompts are answered greedily,
    with the live teacher if the student needs it; answers are scored against the data set's
    (--score), and checked for format, proper ending and repetition.

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
            raise InputError("--compare: name at least two evaluated runs, and no --run")
        comparison = compare_runs(runs)
        from pipeline.commands.running.compare import write_and_print

        write_and_print(comparison, out or Path("comparison"), as_json=as_json)
        return comparison.to_json()
    if run is None or runs or out:
        raise InputError(
            "name one run with --run, or several with --compare, which --out belongs to"
        )
    settings = EvaluateSettings(run=run, **options)
    _check(settings)
    from pipeline.commands.running.evaluate import run_evaluation

    return run_evaluation(settings, as_json=as_json).to_json()


def _check(settings: EvaluateSettings) -> None:
    """Raise InputError or CacheError for what can be refused without loading torch."""
    settings.require_sense()
    recorded = RunFolder(settings.run).require_finished().settings
    require_device(settings.device)
    needs_teacher = settings.samples and recorded.conditioning.needs_live_teacher
    require_teacher(settings.teacher if needs_teacher else None)
    require_data_set(settings.dataset)
    for option, address in (
        ("--cache", settings.cache),
        ("--random-teacher", settings.random_teacher),
    ):
        location = None if address is None else storage_location(address)
        if location is not None and not location.is_remote and not location.top_level_names():
            raise no_cache(location, option)
        require_cache(location)
