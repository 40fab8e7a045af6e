"""Compare evaluated runs; those that differ only in their seed are averaged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.evaluation.results import RESULTS, EvaluationResults, StudentResult
from pipeline.json_dataclasses import key, to_json
from pipeline.runs.folder import RunFolder

_NOT_COMPARED = {"run", "seed", "endpoint", "device", "loader_workers", "report_to"}


@dataclass(frozen=True)
class Spread:
    """A figure of several runs: mean, minimum, maximum, and each value."""

    mean: float
    low: float
    high: float
    values: list[float]


@dataclass(frozen=True)
class ComparedRow:
    """A student, control or baseline of several runs, with its figures by name."""

    name: str
    kind: str
    about: str
    reads: str
    leaks: bool
    figures: dict[str, Spread]


@dataclass(frozen=True)
class ComparedGroup:
    """Runs that differ only in their seed.

    Attributes:
        label: the settings in which groups differ, with values.
        runs: folders.
    """

    label: str
    runs: list[str]
    seeds: list[int]
    rows: list[ComparedRow]


@dataclass(frozen=True)
class Comparison:
    """Evaluated runs, grouped by their settings.

    Attributes:
        differing: names of the settings of training or evaluation in which groups differ.
    """

    kind: str
    differing: list[str] = field(metadata=key("apart"))
    groups: list[ComparedGroup]

    def to_json(self) -> dict[str, Any]:
        """Return the content of `comparison.json`."""
        content: dict[str, Any] = to_json(self)
        return content


@dataclass(frozen=True)
class _EvaluatedRun:
    folder: Path
    seed: int
    settings: dict[str, Any]
    students: list[StudentResult]


def compare(runs: Sequence[Path]) -> Comparison:
    """Compare evaluated runs.

    Raises:
        InputError: a run is not evaluated, or is named twice.
    """
    if len(set(runs)) < len(runs):
        raise InputError("--compare: a run is named twice")
    evaluated = [_read(run) for run in runs]
    groups: dict[str, list[_EvaluatedRun]] = {}
    for run in evaluated:
        groups.setdefault(json.dumps(run.settings, sort_keys=True), []).append(run)
    names = dict.fromkeys(name for run in evaluated for name in run.settings)
    differing = [
        name for name in names if len({json.dumps(run.settings.get(name)) for run in evaluated}) > 1
    ]
    return Comparison(
        kind="llm-modules comparison",
        differing=[_option(name) for name in differing],
        groups=[_group(members, differing) for members in groups.values()],
    )


def _read(run: Path) -> _EvaluatedRun:
    folder = RunFolder(run)
    path = folder.evaluation / RESULTS
    settings = to_json(folder.require_finished().settings)
    try:
        results = EvaluationResults.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise InputError(
            f"{run}: not evaluated yet; evaluate it first: evaluate --run {run}"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); evaluate the run again") from error
    compared = {name: value for name, value in settings.items() if name not in _NOT_COMPARED}
    return _EvaluatedRun(
        folder=run,
        seed=settings["seed"],
        settings=compared | results.options,
        students=results.students,
    )


def _group(members: Sequence[_EvaluatedRun], differing: Sequence[str]) -> ComparedGroup:
    settings = members[0].settings
    label = ", ".join(f"{_option(name)} {settings.get(name)}" for name in differing)
    names = dict.fromkeys(student.name for run in members for student in run.students)
    return ComparedGroup(
        label=label or "all runs",
        runs=[str(run.folder) for run in members],
        seeds=[run.seed for run in members],
        rows=[
            _row([student for run in members for student in run.students if student.name == name])
            for name in names
        ],
    )


def _row(results: Sequence[StudentResult]) -> ComparedRow:
    values: dict[str, list[float]] = {}
    for result in results:
        for name, value in _figures(result):
            if value is not None:
                values.setdefault(name, []).append(value)
    first = results[0]
    return ComparedRow(
        name=first.name,
        kind=first.kind,
        about=first.about,
        reads=first.reads,
        leaks=first.leaks,
        figures={
            name: Spread(sum(numbers) / len(numbers), min(numbers), max(numbers), numbers)
            for name, numbers in values.items()
        },
    )


def _figures(result: StudentResult) -> Iterator[tuple[str, float | None]]:
    yield "val_loss", result.val_loss
    yield "bits_a_byte", result.bits_per_byte
    yield "exact_match", result.exact_match
    yield "thought_solution_form", result.thought_solution_form
    yield "stopped", result.stopped
    yield "repetition", result.repetition
    yield "steps", result.steps
    yield "tokens", result.tokens
    yield "parameters", result.parameters
    yield "seconds", result.seconds
    yield "training_flops", result.training_flops
    yield "generated_tokens_per_second", result.generated_tokens_per_second
    if result.score is not None:
        yield "score", result.score.value if result.exact_match is None else None
        yield "fields", result.score.fields
    if result.transfer is not None:
        yield "transfer", result.transfer.score
    for name, loss in (result.ablations or {}).items():
        yield f"features: {name}", loss
    if result.leak is not None:
        yield "leaked", result.leak.leaked


def _option(name: str) -> str:
    return name.replace("_", "-")
