"""The runs that a student is held against: what each of them changes, all else being equal."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from cache.places import Where
from pipeline.errors import InputError
from pipeline.model import SIZES
from pipeline.training.settings import TrainSettings

CONTROLS = ("layer-0", "no-teacher")
"""Layer 0, the teacher's embeddings alone (same path, no knowledge), and the same GPT-Neo on the tokens without a teacher."""
BASELINES = ("gpt-neo-untouched", "gpt-neo-fine-tuned", "gpt-neo-scratch", "distilled", "bidirectional")
"""The paper's table 1, distillation, and the published code's attention, which leaks."""
RANDOM_TEACHER = "random-teacher"
_DISTILL = 0.5
_LAYER = re.compile(r"layer-(-?\d+)")


def is_control(name: str) -> bool:
    """Whether a run is there to tell what of a student's result comes from the teacher."""
    return name in (*CONTROLS, RANDOM_TEACHER) or _LAYER.fullmatch(name) is not None


def told_order(name: str) -> tuple[int, int, str]:
    """Where a run stands among those beside a student: controls before baselines, those on layers first."""
    if is_control(name):
        layer = _LAYER.fullmatch(name)
        return (0, int(layer[1]), "") if layer else (1, 0, name)
    return 2, BASELINES.index(name) if name in BASELINES else len(BASELINES), name


def about(name: str) -> str:
    """What a run beside a student is, in a few words."""
    known = {
        "student": "the student",
        "no-teacher": "the same GPT-Neo on the tokens",
        RANDOM_TEACHER: "a teacher of random weights",
        "gpt-neo-untouched": "GPT-Neo as it was",
        "gpt-neo-fine-tuned": "GPT-Neo, fine-tuned on the same data",
        "gpt-neo-scratch": "GPT-Neo from new weights, on the same data",
        "distilled": f"the same GPT-Neo on the tokens, {_DISTILL:.0%} of its loss from the teacher's predictions",
        "bidirectional": "the published code's attention, which sees the answer",
        "teacher": "the teacher alone",
    }
    return known.get(name) or f"the teacher's layer {name.removeprefix('layer-')}"


def beside(settings: TrainSettings, name: str, *, steps: int, random_teacher: Where | None = None) -> TrainSettings:
    """The run of a name: same data, seed, steps and tokens, nothing to stop it early.

    Args:
        settings: the student's.
        name: of `CONTROLS` or `BASELINES`, `layer-N`, or `random-teacher`.
        steps: how many the student took.
        random_teacher: the cache of a teacher of random weights.

    Raises:
        InputError: there is no such run beside this student, or it would be the same one.
    """
    same: dict[str, Any] = {"run": settings.run / "controls" / name, "max_steps": steps, "patience": 0}
    changed = replace(settings, **same | _changes(settings, name, random_teacher))
    if replace(changed, **{field: getattr(settings, field) for field in same}) == settings:
        raise InputError(f"{name}: would be the student itself; leave it out")
    return changed


def possible_baselines(settings: TrainSettings) -> list[str]:
    """The names of `BASELINES` that make sense beside a student; what its cache lacks is not looked at."""
    return [name for name in BASELINES if _impossible(settings, name) is None]


def _changes(settings: TrainSettings, name: str, random_teacher: Where | None) -> dict[str, Any]:
    if reason := _impossible(settings, name):
        raise InputError(f"{name}: {reason}; leave it out")
    if layer := _LAYER.fullmatch(name):
        return {"layers": (int(layer[1]),)}
    if name == RANDOM_TEACHER and random_teacher is not None:
        return {"cache": random_teacher}
    text = {"condition": "text", "layers": (-1,), "head_init": "random", "distill": 0.0, "cross_attention": "causal"}
    tokens = text | {"condition": "none"}
    known: dict[str, dict[str, Any]] = {
        "no-teacher": text if settings.own_tokens else tokens,
        "gpt-neo-untouched": text | {"max_steps": 0},
        "gpt-neo-fine-tuned": text,
        "gpt-neo-scratch": text | {"new_weights": settings.student not in SIZES},
        "distilled": tokens | {"distill": _DISTILL},
        "bidirectional": {"cross_attention": "bidirectional"},
    }
    if name not in known:
        raise InputError(
            f"{name}: no run of that name; there are {', '.join((*CONTROLS, RANDOM_TEACHER, *BASELINES))} and layer-N"
        )
    return known[name]


def _impossible(settings: TrainSettings, name: str) -> str | None:
    """Why there is no such run beside a student; None where there is."""
    is_new = settings.student in SIZES or settings.new_weights
    if not settings.reads_states:
        return f"a student of --condition {settings.condition} reads no teacher"
    if name == "gpt-neo-fine-tuned" and is_new:
        return f"the weights of student {settings.student} were new, so this would be gpt-neo-scratch"
    if settings.own_tokens and name == ("gpt-neo-scratch" if is_new else "gpt-neo-fine-tuned"):
        return f"with --condition {settings.condition} this would be the control no-teacher"
    if name == "distilled" and settings.own_tokens:
        return "the teacher predicts its own tokens, and this student has others"
    if name == "bidirectional" and settings.condition != "sequence":
        return "a student of prompts sees nothing of the answer, so nothing can leak"
    return None
