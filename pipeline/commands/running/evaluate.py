"""`evaluate`: train missing baselines, measure with a progress bar, write and print the results."""

from __future__ import annotations

from rich.table import Table

from cache.files import write_atomically
from pipeline.commands.config_file import options_as_yaml
from pipeline.commands.counted import counted
from pipeline.commands.running.baselines import train_baselines
from pipeline.commands.running.console import layer_weights, result_console
from pipeline.evaluation.harness import HarnessTasks
from pipeline.evaluation.results import EvaluationResults, ScoreDescription, StudentResult
from pipeline.evaluation.run import evaluate
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.progress import count_columns, shown_progress
from pipeline.report.page import write_report
from pipeline.runs.folder import RunFolder

_ABLATIONS = {"gates shut": "gates shut (the rest of the bridge open)"}
"""Descriptions of ablations whose names could mislead."""


def run_evaluation(settings: EvaluateSettings, *, as_json: bool) -> EvaluationResults:
    """Evaluate a run and write its report; print the results unless `as_json`.

    Raises:
        CacheError, InputError, RunError: as `train_baselines` and `evaluate`.
    """
    folder = RunFolder(settings.run)
    folder.comparisons()  # raises for an unfinished one before anything is trained
    tasks = HarnessTasks.of(settings)
    impossible = train_baselines(settings)
    results = _evaluate(settings, tasks, impossible)
    write_report(folder.evaluation, results, folder.curves())
    write_atomically(folder.evaluation / "evaluate.yaml", options_as_yaml().encode())
    if not as_json:
        _print(results, folder)
    return results


def _evaluate(
    settings: EvaluateSettings, tasks: HarnessTasks, impossible: dict[str, str]
) -> EvaluationResults:
    with shown_progress(*count_columns()) as progress:
        progress.stage("load")
        return evaluate(settings, progress, tasks=tasks, impossible=impossible)


def _print(results: EvaluationResults, folder: RunFolder) -> None:
    console = result_console()
    console.print(_table(results))
    for line in (*_lines(results), f"report: {folder.evaluation / 'report.html'}"):
        console.print(line, highlight=False, soft_wrap=True)


def _table(results: EvaluationResults) -> Table:
    table = Table(title="Results on held-out rows")
    table.add_column("run")
    table.add_column("reads")
    score = _score_heading(results.score)
    for heading in ("val. loss", "transfer score", score, "form", "stopped", "steps", "tokens"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.columns[0].no_wrap = True
    for student in results.students:
        table.add_row(
            student.name + (" (LEAKS)" if student.leaks else ""),
            student.reads,
            f"{student.val_loss:.4f}",
            _transfer(student),
            _share(student.score.value if student.score else None),
            _share(student.thought_solution_form),
            _share(student.stopped),
            str(student.steps),
            f"{student.tokens:,}",
        )
    return table


def _lines(results: EvaluationResults) -> list[str]:
    """Return what stands under the table."""
    student = results.student
    lines = [] if results.score is None else [_score_line(results.score, student)]
    for run in results.students:
        if run.ablations:
            losses = [
                f"{_ABLATIONS.get(name, name)} {loss:.4f}" for name, loss in run.ablations.items()
            ]
            lines.append(f"{run.name}, held-out loss by ablation: {', '.join(losses)}")
        if run.layer_weights:
            lines.append(f"{run.name}, weights of its layers: {layer_weights(run.layer_weights)}")
        if run.leak:
            lines.append(
                f"{run.name}, leak: loss {run.leak.reported:.4f} as reported,"
                f" {run.leak.causal:.4f} with causal attention"
            )
    for task, metrics in (student.tasks or {}).items():
        values = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        lines.append(f"task {task}: {values}")
    lines.append(results.verdict)
    lines += [f"not measured: {what}: {why}" for what, why in results.not_measured.items()]
    lines += [
        f"not answered: {counted(count, 'row')}: {reason}"
        for reason, count in results.prompts_left_out.items()
    ]
    return lines


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _transfer(student: StudentResult) -> str:
    if student.transfer is None:
        return "–"
    interval = student.transfer.interval
    spread = "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
    return f"{student.transfer.score:.3f}{spread}"


def _score_heading(score: ScoreDescription | None) -> str:
    if score is None:
        return "right answers"
    return f"{'score' if score.graded else 'right answers'} ({score.name})"


def _score_line(score: ScoreDescription, student: StudentResult) -> str:
    """Return the score with the reason for it, the student's interval, and the rows counted."""
    text = f"score {score.name} ({score.why}): {score.definition}"
    if student.score is not None:
        if student.score.interval is not None:
            low, high = student.score.interval
            text += f"; the student's 95 % interval is {low:.1%} to {high:.1%}"
        if student.score.fields is not None:
            text += f"; right fields {student.score.fields:.1%}"
    text += f"; {counted(score.scored, 'row')} scored"
    if score.not_scored:
        text += f", {counted(score.not_scored, 'row')} without a reference that can be scored"
    return text
