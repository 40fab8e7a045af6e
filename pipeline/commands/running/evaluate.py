"""`evaluate`: the measuring with its bar, the report, and the table."""

from __future__ import annotations

from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from cache.files import write_atomically
from pipeline.commands.config_file import options_as_yaml
from pipeline.commands.counted import counted
from pipeline.commands.running.console import result_console
from pipeline.evaluation.run import evaluate
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.progress import progress_bar
from pipeline.report.page import write_report
from pipeline.runs.folder import RunFolder

_SEEN = {"gates shut": "gates shut (the rest of the bridge open)"}
"""What a student sees, where its name alone would mislead."""


def evaluate_and_tell(settings: EvaluateSettings, *, as_json: bool) -> dict[str, Any]:
    """Evaluate a run and write its report; the results, whose table is printed unless they are to
    be JSON.

    Raises:
        CacheError, InputError, RunError: as `evaluate`.
    """
    results = _measured(settings)
    folder = RunFolder(settings.run)
    write_report(folder.evaluation, results, folder.curves())
    write_atomically(folder.evaluation / "evaluate.yaml", options_as_yaml().encode())
    if not as_json:
        _print(results, folder)
    return results


def _measured(settings: EvaluateSettings) -> dict[str, Any]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    bar = progress_bar(*columns)
    task = bar.add_task("load", total=None)

    def show(what: str, done: int, total: int) -> None:
        bar.start()  # not before: the training of baselines has a bar of its own
        bar.update(task, description=what, completed=done, total=total or None)

    try:
        return evaluate(settings, show)
    finally:
        bar.stop()


def _print(results: dict[str, Any], folder: RunFolder) -> None:
    console = result_console()
    table = Table(title="What was transferred, on rows held out")
    score_name = _score_heading(results["score"])
    for heading in (
        "run",
        "reads",
        "val. loss",
        "transfer score",
        score_name,
        "form",
        "stopped",
        "steps",
        "tokens",
    ):
        table.add_column(
            heading,
            justify="left" if heading in ("run", "reads") else "right",
            no_wrap=heading != "reads",
        )
    for student in results["students"]:
        shares = [f"{student['score']['value']:.1%}" if "score" in student else "–"]
        shares += [
            f"{student[name]:.1%}" if name in student else "–"
            for name in ("thought_solution_form", "stopped")
        ]
        name = student["name"] + (" (LEAKS)" if student["leaks"] else "")
        score = "–"
        if transfer := student.get("transfer"):
            score = f"{transfer['score']:.3f}"
            score += (
                " ({:.3f} to {:.3f})".format(*transfer["interval"]) if transfer["interval"] else ""
            )
        counts = [str(student["steps"]), f"{student['tokens']:,}"]
        table.add_row(name, student["reads"], f"{student['val_loss']:.4f}", score, *shares, *counts)
    console.print(table)
    if score := results["score"]:
        console.print(
            _score_in_words(score, results["students"][0]), highlight=False, soft_wrap=True
        )
    for student in results["students"]:
        if features := student.get("features"):
            told = ", ".join(
                f"{_SEEN.get(name, name)} {loss:.4f}" for name, loss in features.items()
            )
            console.print(
                f"{student['name']}, held-out loss by what it sees: {told}",
                highlight=False,
                soft_wrap=True,
            )
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


def _score_heading(score: dict[str, Any] | None) -> str:
    if score is None:
        return "right answers"
    return f"score ({score['name']})" if score["graded"] else f"right answers ({score['name']})"


def _score_in_words(score: dict[str, Any], student: dict[str, Any]) -> str:
    """Which score it is and why, its interval for the student, and how many rows it counts."""
    text = f"score {score['name']} ({score['why']}): {score['definition']}"
    if found := student.get("score"):
        if found["interval"]:
            text += "; the student's 95 % interval is {:.1%} to {:.1%}".format(*found["interval"])
        if "fields" in found:
            text += f"; right fields {found['fields']:.1%}"
    without = (
        f", {counted(score['not_scored'], 'row')} without a reference that can be scored"
        if score["not_scored"]
        else ""
    )
    return f"{text}; {counted(score['scored'], 'row')} scored{without}"
