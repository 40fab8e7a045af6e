"""The verdict of an evaluation, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.conditions.registry import condition_named
from pipeline.data.split import MIN_HELD_OUT
from pipeline.evaluation.results import Interval, ScoreDescription, StudentResult

_DECISIVE_ABLATIONS = {"mismatched": "with those of another", "zeroed": "with none"}


def verdict(results: Sequence[StudentResult], score: ScoreDescription | None = None) -> str:
    """Return whether knowledge was transferred, from the results.

    It was if the whole interval of the transfer score is above zero for every control, and if a
    student of prompts is better with the states of the prompt than with others. Runs on other
    layers of the teacher do not count: these layers have knowledge, too.

    Args:
        results: of the student, then of its comparison runs.
        score: of the answers.
    """
    student, controls = results[0], [result for result in results if result.kind == "control"]
    loss = f"validation loss {student.val_loss:.3f}"
    if student.leaks:
        return f"Leaking attention, so no verdict: {loss} is partly read off the answers."
    ablations = _decisive_ablations(student)
    if ablations:
        others = [f"{ablations[name]:.3f} {_DECISIVE_ABLATIONS[name]}" for name in ablations]
        loss += f" with the states of each prompt, {', '.join(others)}"
    if not controls:
        return f"{loss}; train with --controls to measure how much comes from the teacher."
    intervals = _intervals(controls)
    if len(intervals) < len(controls):
        return (
            f"No verdict: {loss}, and too few rows are held out to measure how much comes from"
            f" the teacher; {MIN_HELD_OUT} are needed: train with more rows or --validation."
        )
    worst = min(controls, key=lambda control: intervals[control.name][0])
    assert worst.transfer is not None
    low, high = intervals[worst.name]
    uses_states = all(student.val_loss < other for other in ablations.values())
    finding = "Transferred" if low > 0 and uses_states else "No transfer shown"
    if finding == "Transferred" and not _answers_better(student, controls):
        finding = "Transferred in loss alone"
    losses = ", ".join(f"{control.val_loss:.3f} ({control.name})" for control in controls)
    return (
        f"{finding}: {loss}{',' if ablations else ''} against {losses}"
        f"{_scores(student, controls, score)}; transfer score {worst.transfer.score:.3f}"
        f" ({low:.3f} to {high:.3f}) relative to {worst.name}."
    )


def _decisive_ablations(student: StudentResult) -> dict[str, float]:
    """Return the losses of ablations that are not trivial for this student."""
    losses = student.ablations or {}
    trivial = condition_named(student.condition).trivial_ablations
    return {name: losses[name] for name in _DECISIVE_ABLATIONS if name in {*losses} - trivial}


def _intervals(controls: Sequence[StudentResult]) -> dict[str, Interval]:
    return {
        control.name: control.transfer.interval
        for control in controls
        if control.transfer is not None and control.transfer.interval is not None
    }


def _answers_better(student: StudentResult, controls: Sequence[StudentResult]) -> bool:
    """Return whether every control answers worse; True if answers were not scored."""
    score = student.score
    return score is None or all(
        control.score is None or control.score.value < score.value for control in controls
    )


def _scores(
    student: StudentResult, controls: Sequence[StudentResult], score: ScoreDescription | None
) -> str:
    if score is None or student.score is None:
        return ""
    what = "mean score" if score.graded else "right answers"
    others = ", ".join(
        f"{control.score.value:.0%} ({control.name})"
        for control in controls
        if control.score is not None
    )
    return f"; {what} ({score.name}) {student.score.value:.0%} against {others}"
