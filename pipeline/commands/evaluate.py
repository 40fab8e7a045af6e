"""`evaluate`: what was transferred."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipeline.commands.cache_places import cache_places
from pipeline.commands.shell import command
from pipeline.evaluation.run import evaluate as run_evaluate
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.progress import progress_bar
from pipeline.report.page import write_report
from pipeline.training.record import trained_from
from pipeline.training.run_folder import RunFolder


@click.command()
@click.option("--run", type=click.Path(path_type=Path), required=True, help="A finished run.")
@click.option("--cache", metavar="PLACE", help="Its cache, where that has moved.")
@click.option("--teacher", help="Its teacher, where that has moved.")
@click.option("--dataset", help="Answer the prompts of another data set.  [default: the validation rows]")
@click.option("--dataset-config", help="Configuration of that data set, where the hub has several.")
@click.option("--split", default="test", show_default=True, help="Split of that data set on the hub.")
@click.option("--samples", type=click.IntRange(min=0), default=100, show_default=True, help="Prompts to answer (0: none).")
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="Prompts answered at a time.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="Longest answer.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda")
@command
@cache_places("cache", otherwise=lambda given: trained_from(RunFolder(given["run"])))
def evaluate(*, as_json: bool, **options: Any) -> dict[str, Any]:
    """Measure a run and its controls on held-out examples; write evaluation/results.json and report.html.

    Validation loss comes from the cache. Prompts are answered greedily, with the teacher live where the student needs it, and
    scored by exact match of the final answer and by form. A student of prompts is also measured with the states of other
    prompts, and with none.

    \b
    Examples:
      llm-modules evaluate --run my-run
      llm-modules evaluate --run my-run --dataset new-rows.jsonl --samples 500
    """
    settings = EvaluateSettings(**options)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with progress_bar(*columns) as bar:
        task = bar.add_task("load", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        results = run_evaluate(settings, show)
    folder = RunFolder(settings.run)
    curves = {name: run.read_metrics() for name, run in {"student": folder, **folder.controls()}.items()}
    write_report(folder.evaluation / "report.html", results, curves)
    if not as_json:
        _print(results, folder)
    return results


def _print(results: dict[str, Any], folder: RunFolder) -> None:
    console = Console(width=None if sys.stdout.isatty() else 130)
    table = Table(title="What was transferred, on held-out examples")
    for heading in ("run", "reads", "val. loss", "perplexity", "exact match", "form", "stopped", "steps", "tokens"):
        table.add_column(heading, justify="left" if heading in ("run", "reads") else "right", no_wrap=heading != "reads")
    for student in results["students"]:
        shares = [
            f"{student[name]:.1%}" if name in student else "–" for name in ("exact_match", "thought_solution_form", "stopped")
        ]
        name = student["name"] + (" (LEAKS)" if student["leaks"] else "")
        losses = [f"{student['val_loss']:.4f}", f"{student['perplexity']:.3f}"]
        table.add_row(name, student["reads"], *losses, *shares, str(student["steps"]), f"{student['tokens']:,}")
    console.print(table)
    for student in results["students"]:
        if features := student.get("features"):
            told = ", ".join(f"{name} {loss:.4f}" for name, loss in features.items())
            console.print(f"{student['name']}, held-out loss by whose states it sees: {told}", highlight=False, soft_wrap=True)
    console.print(results["verdict"], highlight=False, soft_wrap=True)
    for reason, count in results["prompts_left_out"].items():
        console.print(f"not answered: {count} rows: {reason}", highlight=False)
    console.print(f"report: {folder.evaluation / 'report.html'}", highlight=False, soft_wrap=True)
