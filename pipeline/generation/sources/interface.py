"""What a writer needs from the source of its student's hidden states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from cache import Cache
from pipeline.data.conversations import Turn
from pipeline.data.templates import TemplateName
from pipeline.teacher.model import Teacher


@dataclass(frozen=True)
class SourceOptions:
    """What sources are built from.

    Attributes:
        run: names the run in errors.
        layers: of the teacher, in the order in which their states are concatenated.
        load_teacher: loads the teacher.
        device: of the student.
        template, teachers_tokenizer: turn a prompt into the teacher's tokens.
        cache: of prompts whose states need no teacher.
        keep_teacher: keep the teacher in memory between prompts.
    """

    run: str
    layers: Sequence[int]
    load_teacher: Callable[[], Teacher]
    device: torch.device
    template: TemplateName
    teachers_tokenizer: PreTrainedTokenizerBase
    cache: Cache | None = None
    keep_teacher: bool = True


class StatesSource(ABC):
    """Gives a student its hidden states."""

    @property
    def context(self) -> int | None:
        """The most tokens that it reads of prompt and answer; None: no limit."""
        return None

    @abstractmethod
    def generate_arguments(self, prompts: Sequence[Sequence[Turn]]) -> dict[str, Any]:
        """Return the arguments of the student's `generate` for a batch of prompts.

        Raises:
            InputError: the teacher cannot be loaded, or cannot read a prompt.
        """

    @abstractmethod
    def forward_arguments(self, prompt: Sequence[Turn], ids_1T: torch.Tensor) -> dict[str, Any]:
        """Return the arguments of the student's `forward`.

        Args:
            prompt: what the answer follows.
            ids_1T: the student's tokens of prompt and answer.

        Raises:
            InputError: as `generate_arguments`.
        """
