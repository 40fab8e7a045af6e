"""The settings of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from cache.storage import LocationLike, StorageLocation
from pipeline.errors import InputError
from pipeline.option import (
    CACHE_LOCATION,
    AnswerBatch,
    Device,
    MaxNewTokens,
    MovedTeacher,
    Option,
)
from pipeline.runs.comparisons import BASELINES, current_name
from pipeline.scoring.choose import require_score
from pipeline.scoring.option import ScoreName

TEACHER = "teacher"
"""The baseline that is not trained."""


@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """Which prompts are answered, and how answers are scored."""

    samples: Annotated[int, Option("Prompts to answer; 0: none.", at_least=0)] = 100
    score: ScoreName = "auto"
    dataset: Annotated[
        str | None,
        Option("Answer the prompts of another data set.", default="the held-out rows"),
    ] = None
    dataset_config: Annotated[
        str | None, Option("Configuration of that data set, if the hub has several.")
    ] = None
    split: Annotated[str, Option("Split of that data set on the hub.")] = "test"
    max_new_tokens: MaxNewTokens = 256
    batch_size: AnswerBatch = 16


@dataclass(frozen=True, kw_only=True)
class HarnessOptions:
    """Tasks of lm-evaluation-harness that the student does."""

    tasks: Annotated[
        tuple[str, ...],
        Option(
            "Also a task of lm-evaluation-harness, such as gsm8k; may be repeated.", name="task"
        ),
    ] = ()
    task_path: Annotated[Path | None, Option("Folder with your own tasks.", exists=True)] = None
    task_limit: Annotated[int | None, Option("Documents per task, at most.", at_least=1)] = None


@dataclass(frozen=True, kw_only=True)
class LocationOptions:
    """Where the evaluation computes, and where things are that have moved since training."""

    device: Device = "auto"
    cache: Annotated[
        LocationLike | None,
        Option("Where the cache is now, if it has moved since training.", metavar=CACHE_LOCATION),
    ] = None
    random_teacher: Annotated[
        LocationLike | None,
        Option(
            "Where the cache of the control random-teacher is now, if it has moved.",
            metavar=CACHE_LOCATION,
        ),
    ] = None
    teacher: MovedTeacher = None


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(PromptOptions, HarnessOptions, LocationOptions):
    """One evaluation; each field is the option of that name of `evaluate`."""

    run: Path
    baselines: Annotated[
        tuple[str, ...],
        Option(
            "Also compare with these, after training the missing ones:"
            f" {', '.join((TEACHER, *BASELINES))}; or all.",
            metavar="NAMES",
            with_commas=True,
        ),
    ] = ()

    @property
    def includes_teacher(self) -> bool:
        """Whether the teacher itself is measured."""
        return bool({TEACHER, "all"} & {*self.baselines})

    @property
    def named_baselines(self) -> list[str]:
        """Baselines to be trained that are named one by one."""
        names = dict.fromkeys(map(current_name, self.baselines))
        return [name for name in names if name not in (TEACHER, "all")]

    def require_sense(self) -> None:
        """Raise InputError for an unknown baseline or score, or for tasks without the harness."""
        require_score(self.score)
        if unknown := {*self.named_baselines} - {*BASELINES}:
            raise InputError(
                f"--baselines {min(unknown)}: unknown; choose from"
                f" {', '.join((TEACHER, *BASELINES))}, or all"
            )
        if self.tasks:
            require_harness()


def no_cache(location: StorageLocation, option: str) -> InputError:
    """Return the error for a cache that is not where its run was trained from."""
    return InputError(f"{location.address}: no cache here; pass its present location as {option}")


def require_harness() -> None:
    """Raise InputError if lm-evaluation-harness is not installed."""
    if find_spec("lm_eval") is None:
        raise InputError(
            "--task: lm-evaluation-harness is not installed; install this project with its extra"
            " eval: pip install -c constraints.txt '.[eval]'"
        )
