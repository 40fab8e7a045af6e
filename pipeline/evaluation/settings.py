"""What the user asks of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cache.storage import Place, Where
from pipeline.errors import InputError
from pipeline.runs.comparisons import BASELINES
from pipeline.scoring.choose import require_score

TEACHER = "teacher"
"""The baseline that is not trained."""


@dataclass(frozen=True)
class EvaluateSettings:
    """One evaluation, as asked for on the command line; each field is the option of that name.

    Attributes:
        cache, teacher, dataset: None for those that the run was trained from; prompts are then the
            rows held out, from the cache.
        random_teacher: the cache of the control of that name; None for the one that it was trained
            from.
        dataset_config, split: of a hub data set named by `dataset`.
        samples: held-out prompts to answer; 0 for none.
        score: how answers are compared with the references, as `choose_score` names it.
        batch_size: prompts answered at a time.
        max_new_tokens: longest answer.
        baselines: names of comparison runs that are trained first where they are not there (`teacher`:
            never trained).
        tasks: of lm-evaluation-harness, to be answered by the student, too.
        task_path: a folder with further tasks.
        task_limit: most documents of each.
    """

    run: Path
    cache: Where | None = None
    random_teacher: Where | None = None
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

    def require_sense(self) -> None:
        """Refuse what no run can be asked.

        Raises:
            InputError: no such baseline or score, or tasks without what answers them.
        """
        require_score(self.score)
        if unknown := {*self.baselines} - {*BASELINES, TEACHER, "all"}:
            raise InputError(
                f"--baselines {min(unknown)}: there are {', '.join((TEACHER, *BASELINES))}, or all"
            )
        if self.tasks:
            require_harness()


def no_cache(place: Place, option: str) -> InputError:
    """What to say where a run's cache was, and is no longer."""
    return InputError(
        f"{place.address}: there is no cache; name with {option} where the run's own is now"
    )


def require_harness() -> None:
    """Find out whether lm-evaluation-harness can be imported.

    Raises:
        InputError: it is not installed.
    """
    if find_spec("lm_eval") is None:
        raise InputError(
            "--task: lm-evaluation-harness is not installed; install this project with its extra"
            " eval: pip install -c constraints.txt '.[eval]'"
        )
