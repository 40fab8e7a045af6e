"""The settings of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cache.storage import LocationLike, StorageLocation
from pipeline.errors import InputError
from pipeline.runs.comparisons import BASELINES
from pipeline.scoring.choose import require_score

TEACHER = "teacher"
"""The baseline that is not trained."""


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """One evaluation; each field is the option of that name.

    Attributes:
        cache, teacher, dataset: None for those that the run was trained from; the prompts are then
            held-out rows of the cache.
        random_teacher: cache of the control of that name; None for the one it was trained from.
        dataset_config, split: of a hub data set named by `dataset`.
        samples: number of held-out prompts to answer; 0 for none.
        score: how answers are compared with references, as `choose_score` names it.
        batch_size: prompts answered at a time.
        max_new_tokens: longest answer.
        baselines: names of baselines, `teacher`, or `all`; the command trains missing ones.
        tasks: of lm-evaluation-harness, for the student.
        task_path: folder with further tasks.
        task_limit: most documents per task.
    """

    run: Path
    cache: LocationLike | None = None
    random_teacher: LocationLike | None = None
    teacher: str | None = None
    dataset: str | None = None
    dataset_config: str | None = None
    split: str = "test"
    samples: int = 100
    score: str = "auto"
    batch_size: int = 16
    max_new_tokens: int = 256
    device: str = "auto"
    baselines: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    task_path: Path | None = None
    task_limit: int | None = None

    @property
    def includes_teacher(self) -> bool:
        """Whether the teacher itself is measured."""
        return bool({TEACHER, "all"} & {*self.baselines})

    @property
    def named_baselines(self) -> list[str]:
        """Baselines to be trained that are named one by one."""
        return [name for name in dict.fromkeys(self.baselines) if name not in (TEACHER, "all")]

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
