"""Several evaluated runs side by side; those that differ by their seed alone count as one, with a
mean and a spread."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.runs.folder import RunFolder

FIGURES = (
    "val_loss", "bits_a_byte", "exact_match", "thought_solution_form", "stopped", "repetition", "steps", "tokens", "parameters",
    "seconds", "training_flops", "generated_tokens_per_second",
)  # fmt: skip
_NOT_TOLD = {"run", "seed", "endpoint", "device", "loader_workers", "report_to"}


@dataclass(frozen=True)
class _Evaluated:
    folder: Path
    seed: int
    told: dict[str, Any]
    students: list[dict[str, Any]]


def compare(runs: Sequence[Path]) -> dict[str, Any]:
    """What some evaluated runs have found, beside each other.

    Returns:
        `apart`, the names of the settings that differ, of training and of evaluation; and `groups`,
        of runs that differ by their
        seed alone: `label` (those settings), `runs`, `seeds`, and `rows`: for each student, control
        and baseline its `figures`, each with `mean`, `low`, `high` and `values`.

    Raises:
        InputError: a run was not evaluated, or is named twice.
    """
    if len(set(runs)) < len(runs):
        raise InputError("--compare: a run is named twice")
    evaluated = [_read(run) for run in runs]
    groups: dict[str, list[_Evaluated]] = {}
    for each in evaluated:
        groups.setdefault(json.dumps(each.told, sort_keys=True), []).append(each)
    names = dict.fromkeys(name for each in evaluated for name in each.told)
    differing = [
        name for name in names if len({json.dumps(each.told.get(name)) for each in evaluated}) > 1
    ]
    return {
        "kind": "llm-modules comparison",
        "apart": [name.replace("_", "-") for name in differing],
        "groups": [
            {
                "label": (
                    ", ".join(
                        f"{name.replace('_', '-')} {members[0].told.get(name)}"
                        for name in differing
                    )
                    or "all runs"
                ),
                "runs": [str(each.folder) for each in members],
                "seeds": [each.seed for each in members],
                "rows": _rows(members),
            }
            for members in groups.values()
        ],
    }


def _read(run: Path) -> _Evaluated:
    folder = RunFolder(run)
    path = folder.evaluation / "results.json"
    settings = folder.require_finished()["settings"]
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        students = [dict(student) for student in results["students"]]
        told = {name: value for name, value in settings.items() if name not in _NOT_TOLD} | dict(
            results.get("asked", {})
        )
        return _Evaluated(run, settings["seed"], told, students)
    except FileNotFoundError as error:
        raise InputError(
            f"{run}: was not evaluated yet; do that first: evaluate --run {run}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); evaluate the run again") from error


def _rows(members: Sequence[_Evaluated]) -> list[dict[str, Any]]:
    names = dict.fromkeys(student["name"] for each in members for student in each.students)
    rows = []
    for name in names:
        found = [
            student for each in members for student in each.students if student["name"] == name
        ]
        figures = {
            figure: _spread([run[figure] for run in found if run.get(figure) is not None])
            for figure in FIGURES
        }
        graded = [run["score"] for run in found if "score" in run and "exact_match" not in run]
        figures["score"] = _spread([score["value"] for score in graded])
        figures["fields"] = _spread(
            [run["score"]["fields"] for run in found if "fields" in run.get("score", {})]
        )
        figures["transfer"] = _spread(
            [run["transfer"]["score"] for run in found if run.get("transfer")]
        )
        for kind in dict.fromkeys(kind for run in found for kind in run.get("features", {})):
            figures[f"features: {kind}"] = _spread(
                [run["features"][kind] for run in found if kind in run.get("features", {})]
            )
        figures["leaked"] = _spread([run["leak"]["leaked"] for run in found if "leak" in run])
        told = {field: found[0][field] for field in ("name", "kind", "about", "reads", "leaks")}
        rows.append(
            told | {"figures": {figure: spread for figure, spread in figures.items() if spread}}
        )
    return rows


def _spread(values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    return {
        "mean": sum(values) / len(values),
        "low": min(values),
        "high": max(values),
        "values": list(values),
    }
