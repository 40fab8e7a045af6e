"""`evaluate`: what was transferred."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import cloup
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from cache.files import write_atomically
from cache.places import Place
from pipeline.commands.cache_places import cache_places
from pipeline.commands.config_file import options_as_yaml
from pipeline.commands.counted import counted
from pipeline.commands.list_parameters import NameList
from pipeline.commands.shell import command
from pipeline.errors import InputError
from pipeline.evaluation.compare import compare as compare_runs
from pipeline.evaluation.run import evaluate as run_evaluate
from pipeline.evaluation.settings import TEACHER, EvaluateSettings
from pipeline.progress import progress_bar
from pipeline.report.compare import compared_table, kept_apart, write_comparison
from pipeline.report.page import write_report
from pipeline.training.companions import BASELINES
from pipeline.training.record import trained_from
from pipeline.training.run_folder import RunFolder

_SEEN = {"gates shut": "gates shut (the rest of the bridge open)"}
"""What a student sees, where its name alone would mislead."""


def _own_place(given: dict[str, Any]) -> Place | None:
    return None if given["compare"] or given["run"] is None else trained_from(RunFolder(given["run"]))


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
        help=f"Compare with these too, and train those first that are not there: {', '.join((TEACHER, *BASELINES))}; or all.",
    ),
    click.option("--compare", is_flag=True, help="Set evaluated runs R1 R2 … side by side instead."),
    click.option("--out", type=click.Path(path_type=Path), help="Folder for what --compare writes.  [default: comparison]"),
)
@cloup.option_group(
    "Prompts to answer",
    click.option("--samples", type=click.IntRange(min=0), default=100, show_default=True, help="Prompts to answer (0: none)."),
    click.option("--dataset", help="Answer the prompts of another data set.  [default: the validation rows]"),
    click.option("--dataset-config", help="Configuration of that data set, where the hub has several."),
    click.option("--split", default="test", show_default=True, help="Split of that data set on the hub."),
    click.option("--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="Longest answer."),
    click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="Prompts answered at a time."),
)
@cloup.option_group(
    "Tasks of lm-evaluation-harness",
    click.option("--task", "tasks", multiple=True, help="Also a task of lm-evaluation-harness, such as gsm8k; may be repeated."),
    click.option("--task-path", type=click.Path(exists=True, path_type=Path), help="Folder with tasks of your own."),
    click.option("--task-limit", type=click.IntRange(min=1), help="Most documents of a task."),
)
@cloup.option_group(
    "Machine, and what has moved",
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda"),
    click.option("--cache", metavar="PLACE", help="Its cache, where that has moved."),
    click.option("--random-teacher", metavar="PLACE", help="The cache of its control of that name, where that has moved."),
    click.option("--teacher", help="Its teacher, where that has moved."),
)
@command
@cache_places("cache", "random_teacher", otherwise=_own_place)
def evaluate(
    *, as_json: bool, runs: tuple[Path, ...], run: Path | None, compare: bool, out: Path | None, **options: Any
) -> dict[str, Any]:
    """Measure a run, its controls and baselines on rows held out; write evaluation/results.json, report.html and pictures.

    Losses come from the cache, each with its interval over rows, and with the states changed: another example's, in random order,
    none, gates shut. Prompts are answered greedily, with the teacher live where the student needs it, and scored by exact match
    of the final answer, by form, stopping and repetition.

    \b
    Examples:
      llm-modules evaluate --run my-run
      llm-modules evaluate --run my-run --baselines teacher,distilled
      llm-modules evaluate --run my-run --baselines all --task gsm8k
      llm-modules evaluate --run my-run --dataset new-rows.jsonl --samples 500
      llm-modules evaluate --compare run-a run-b run-c
    """
    if compare:
        return _compared(runs, run, out or Path("comparison"), as_json=as_json)
    if run is None or runs or out:
        raise InputError("name one run with --run, or several after --compare (which --out goes with)")
    results = _measured(EvaluateSettings(run, **options))
    folder = RunFolder(run)
    write_report(folder.evaluation, results, folder.curves())
    write_atomically(folder.evaluation / "evaluate.yaml", options_as_yaml().encode())
    if not as_json:
        _print(results, folder)
    return results


def _measured(settings: EvaluateSettings) -> dict[str, Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = progress_bar(*columns)
    task = bar.add_task("load", total=None)

    def show(what: str, done: int, total: int) -> None:
        bar.start()  # not before: the training of baselines has a bar of its own
        bar.update(task, description=what, completed=done, total=total or None)

    try:
        return run_evaluate(settings, show)
    finally:
        bar.stop()


def _compared(runs: tuple[Path, ...], run: Path | None, out: Path, *, as_json: bool) -> dict[str, Any]:
    if len(runs) < 2 or run is not None:
        raise InputError("--compare: name at least two evaluated runs after it, and no --run")
    comparison = compare_runs(runs)
    write_comparison(out, comparison)
    if not as_json:
        console = _console()
        if apart := kept_apart(comparison):
            console.print(apart, highlight=False)
        for group in comparison["groups"]:
            heading, *rows = compared_table(group)
            table = Table(title=f"{group['label']}; seeds {', '.join(map(str, group['seeds']))}")
            for place, name in enumerate(heading):
                table.add_column(name, justify="right" if place else "left", no_wrap=not place)
            for row in rows:
                table.add_row(*row)
            console.print(table)
        console.print(f"{out / 'comparison.html'}, .md, .json", highlight=False, soft_wrap=True)
    return comparison


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 150)


def _print(results: dict[str, Any], folder: RunFolder) -> None:
    console = _console()
    table = Table(title="What was transferred, on rows held out")
    for heading in ("run", "reads", "val. loss", "transfer score", "exact match", "form", "stopped", "steps", "tokens"):
        table.add_column(heading, justify="left" if heading in ("run", "reads") else "right", no_wrap=heading != "reads")
    for student in results["students"]:
        shares = [
            f"{student[name]:.1%}" if name in student else "–" for name in ("exact_match", "thought_solution_form", "stopped")
        ]
        name = student["name"] + (" (LEAKS)" if student["leaks"] else "")
        score = "–"
        if transfer := student.get("transfer"):
            score = f"{transfer['score']:.3f}"
            score += " ({:.3f} to {:.3f})".format(*transfer["interval"]) if transfer["interval"] else ""
        counts = [str(student["steps"]), f"{student['tokens']:,}"]
        table.add_row(name, student["reads"], f"{student['val_loss']:.4f}", score, *shares, *counts)
    console.print(table)
    for student in results["students"]:
        if features := student.get("features"):
            told = ", ".join(f"{_SEEN.get(name, name)} {loss:.4f}" for name, loss in features.items())
            console.print(f"{student['name']}, held-out loss by what it sees: {told}", highlight=False, soft_wrap=True)
        if leak := student.get("leak"):
            told = f"{leak['reported']:.4f} as reported, {leak['causal']:.4f} seeing no later token"
            console.print(f"{student['name']}, what leaks: {told}", highlight=False, soft_wrap=True)
    for task, metrics in results["students"][0].get("tasks", {}).items():
        told = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        console.print(f"task {task}: {told}", highlight=False, soft_wrap=True)
    console.print(results["verdict"], highlight=False, soft_wrap=True)
    for what, why in results["not_measured"].items():
        console.print(f"not measured: {what}: {why}", highlight=False, soft_wrap=True)
    for reason, count in results["prompts_left_out"].items():
        console.print(f"not answered: {counted(count, 'row')}: {reason}", highlight=False)
    console.print(f"report: {folder.evaluation / 'report.html'}", highlight=False, soft_wrap=True)
