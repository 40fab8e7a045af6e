"""The interface of sources of hidden states."""

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
    """The options of a source.

    Attributes:
        run: name of the run, for error messages.
        layers: of the teacher, in the order in which their states are concatenated.
        load_teacher: loads the teacher.
        device: of the student.
        tokenizer: the student's.
        aligned: whether each token of a prompt reads one of the teacher's states.
        template, teachers_tokenizer: turn a prompt into the teacher's tokens.
        cache: of prompts whose states need no teacher.
        keep_teacher: keep the teacher in memory between prompts.
    """

    run: str
    layers: Sequence[int]
    load_teacher: Callable[[], Teacher]
    device: torch.device
    tokenizer: PreTrainedTokenizerBase
    aligned: bool
    template: TemplateName
    teachers_tokenizer: PreTrainedTokenizerBase
    cache: Cache | None = None
    keep_teacher: bool = True


class StatesSource(ABC):
    """Supplies a student with hidden states."""

    @property
    def context(self) -> int | None:
        """Maximum tokens of prompt and answer together; None: no limit."""
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
            prompt: turns before the answer.
            ids_1T: the student's tokens of prompt and answer.

        Raises:
            InputError: as `generate_arguments`.
        """
