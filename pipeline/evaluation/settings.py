"""What the user asks of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cache.places import Where

TEACHER = "teacher"
"""The baseline that is not trained."""


@dataclass(frozen=True)
class EvaluateSettings:
    """One evaluation, as asked for on the command line; each field is the option of that name.

    Attributes:
        cache, teacher, dataset: None for those that the run was trained from; prompts are then the rows held out, from the cache.
        random_teacher: the cache of the control of that name; None for the one that it was trained from.
        dataset_config, split: of a hub data set named by `dataset`.
        samples: held-out prompts to answer; 0 for none.
        score: how answers are compared with the references, as `choose_score` names it.
        batch_size: prompts answered at a time.
        max_new_tokens: longest answer.
        baselines: names of companions that are trained first where they are not there (`teacher`: never trained).
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
