"""Comparison runs of a student: the setting that each changes, all others being equal."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from cache.storage import LocationLike
from pipeline.conditions.registry import CONDITIONS
from pipeline.errors import InputError
from pipeline.runs.settings import TrainSettings
from pipeline.shapes import SIZES, BridgeShape

CONTROLS = tuple(
    dict.fromkeys(name for condition in CONDITIONS.values() for name in condition.controls)
)
"""Layer 0, the teacher's embeddings (same path, no knowledge), and the decoder on tokens alone."""
BASELINES = (
    "untouched",
    "fine-tuned",
    "scratch",
    "distilled",
    "bidirectional",
)
"""Table 1 of the paper, distillation, and the attention of the published code, which leaks."""
RANDOM_TEACHER = "random-teacher"
FOLDER, OLD_FOLDER = "comparisons", "companions"
"""Folder of the comparison runs, and field of run.json; runs of release 0.1 have the old name."""
_EARLIER = {f"gpt-neo-{name}": name for name in ("untouched", "fine-tuned", "scratch")}
"""Names in release 0.1; folders of its runs keep them."""
_DISTILL = 0.5
_LAYER = re.compile(r"layer-(-?\d+)")


def current_name(name: str) -> str:
    """Return the name that a comparison run of any release has now."""
    return _EARLIER.get(name, name)


def comparison_folder(run: Path, name: str) -> Path:
    """Return the folder of a run's comparison run."""
    old = run / OLD_FOLDER
    folder = old if old.is_dir() else run / FOLDER
    earlier = (folder / former for former, now in _EARLIER.items() if now == name)
    return next((path for path in earlier if path.is_dir()), folder / name)


def kind_of(name: str) -> str:
    """Return `control` (without the teacher's knowledge), `layer` (another layer) or `baseline`."""
    if name in (*CONTROLS, RANDOM_TEACHER):
        return "control"
    return "layer" if _LAYER.fullmatch(name) else "baseline"


def display_order(name: str) -> tuple[int, int, str]:
    """Return a sort key of comparison runs: layers, then controls, then baselines."""
    if layer := _LAYER.fullmatch(name):
        return 0, int(layer[1]), ""
    if kind_of(name) == "control":
        return 1, 0, name
    return 2, BASELINES.index(name) if name in BASELINES else len(BASELINES), name


def describe(name: str, condition: str = "") -> str:
    """Return a short description of a student or comparison run of a condition."""
    descriptions = {
        "student": "the student",
        "no-teacher": (
            "the same decoder on prompt and answer as text"
            if condition == "text"
            else "the same decoder on the tokens"
        ),
        RANDOM_TEACHER: "a teacher of random weights",
        "untouched": "the decoder without training",
        "fine-tuned": "the decoder, fine-tuned on the same data",
        "scratch": "the decoder from new weights, on the same data",
        "distilled": (
            f"the same decoder on the tokens, {_DISTILL:.0%} of its loss from the teacher's"
            " predictions"
        ),
        "bidirectional": "the published code's attention, which sees the answer",
        "teacher": "the teacher alone",
    }
    return descriptions.get(name) or f"the teacher's layer {name.removeprefix('layer-')}"


def comparison_settings(
    settings: TrainSettings, name: str, *, steps: int, random_teacher: LocationLike | None = None
) -> TrainSettings:
    """Return the settings of a comparison run: same data, seed, steps, and no early stopping.

    Args:
        settings: the student's.
        name: of `CONTROLS` or `BASELINES`, `layer-N`, or `random-teacher`.
        steps: number of the student's steps.
        random_teacher: the cache of a teacher with random weights.

    Raises:
        InputError: this student cannot have this comparison run, or it would be the student itself.
    """
    same: dict[str, Any] = {
        "run": comparison_folder(settings.run, name),
        "max_steps": steps,
        "patience": 0,
    }
    changed = replace(settings, **same | _changes(settings, name, random_teacher))
    if replace(changed, **{field: getattr(settings, field) for field in same}) == settings:
        raise InputError(f"{name}: would be the student itself; omit it")
    return changed


def _changes(
    settings: TrainSettings, name: str, random_teacher: LocationLike | None
) -> dict[str, Any]:
    if reason := why_impossible(settings, name):
        raise InputError(f"{name}: {reason}; omit it")
    if layer := _LAYER.fullmatch(name):
        return {"layers": (int(layer[1]),), "mix_layers": False}
    if name == RANDOM_TEACHER and random_teacher is not None:
        return {"cache": random_teacher}
    text = {
        "condition": "text",
        "layers": (-1,),
        "mix_layers": False,
        "states_dropout": 0.0,
        "prompt_text": False,
        "join": BridgeShape.join,
        "head_init": "random",
        "cross_init": "random",
        "distill": 0.0,
        "cross_attention": "causal",
        "freeze": (),
    }
    tokens = text | {"condition": "none"}
    without_teacher = text | {"condition": settings.conditioning.without_teacher}
    changes: dict[str, dict[str, Any]] = {
        "no-teacher": without_teacher,
        "untouched": text | {"max_steps": 0, "lora": None},
        "fine-tuned": text,
        "scratch": text | {"new_weights": settings.student not in SIZES, "lora": None},
        "distilled": tokens | {"distill": _DISTILL},
        "bidirectional": {"cross_attention": "bidirectional"},
    }
    if name not in changes:
        raise InputError(
            f"{name}: no such comparison run; choose from"
            f" {', '.join((*CONTROLS, RANDOM_TEACHER, *BASELINES))} and layer-N"
        )
    return changes[name]


def why_impossible(settings: TrainSettings, name: str) -> str | None:
    """Return why a student cannot have this comparison run, None if it can."""
    is_new = settings.has_new_decoder
    if not settings.reads_states:
        return f"a student of --condition {settings.condition} reads no teacher"
    if name == "fine-tuned" and is_new:
        return f"student {settings.student} had new weights, so this would be scratch"
    if settings.own_tokens and name == ("scratch" if is_new else "fine-tuned"):
        return f"with --condition {settings.condition} this would be the control no-teacher"
    if name == "distilled" and settings.own_tokens:
        return "the teacher predicts its own tokens, which this student does not have"
    if name == "bidirectional" and not settings.conditioning.may_leak:
        return "a student of prompts does not see the states of answers, so nothing can leak"
    if name == "bidirectional" and not settings.cross_layers:
        return "the student has no cross-attention"
    return None
