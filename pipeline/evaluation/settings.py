"""What the user asks of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class EvaluateSettings:
    """One evaluation, as asked for on the command line; each field is the option of that name.

    Attributes:
        cache, teacher, dataset: None for those that the run was trained from.
        samples: held-out prompts to answer; 0 for none.
        batch_size: prompts answered at a time, and examples of a validation batch.
        max_new_tokens: longest answer.
    """

    run: Path
    cache: Path | None = None
    teacher: str | None = None
    dataset: str | None = None
    samples: int = 100
    batch_size: int = 16
    max_new_tokens: int = 256
    device: str = "auto"
