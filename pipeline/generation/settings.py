"""The settings of generation: which student writes where, and how its tokens are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cache.storage import LocationLike
from pipeline.option import CACHE_LOCATION, Device, MaxNewTokens, MovedTeacher, Option

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class WriterSettings:
    """The student that writes; each field is the option of that name of `generate` and `chat`."""

    run: Annotated[Path, Option("A finished run.")]
    system: Annotated[
        str | None,
        Option("System prompt ('' for none).", default="the one the student was trained with"),
    ] = None
    device: Device = "auto"
    teacher: MovedTeacher = None
    teacher_device: Annotated[
        str | None,
        Option("Compute device of the teacher, such as cuda:1.", default="the student's"),
    ] = None
    cache: Annotated[
        LocationLike | None,
        Option(
            "Cache to search for the states of prompts, instead of loading the teacher.",
            metavar=CACHE_LOCATION,
            default="the run's, up to 1 GB",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How each token is chosen, and what ends an answer besides its end token."""

    max_new_tokens: MaxNewTokens = 256
    temperature: Annotated[
        float, Option("Sampling temperature; 0: always the likeliest token.", at_least=0)
    ] = 0.0
    top_p: Annotated[
        float,
        Option("Sample from the likeliest tokens of this total probability.", above=0, at_most=1),
    ] = 1.0
    seed: Annotated[int, Option("Seed of the sampling.")] = 0
    stop: Annotated[
        tuple[str, ...],
        Option("End the answer before this text; may be repeated.", metavar="TEXT"),
    ] = ()

    def generate_arguments(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """Return the arguments of `generate` except its length; `tokenizer` finds stop texts."""
        arguments: dict[str, Any] = {"do_sample": False, "num_beams": 1}
        if self.temperature > 0:
            arguments |= {
                "do_sample": True,
                "temperature": self.temperature,
                "top_p": self.top_p,
                "top_k": 0,
            }
        if self.stop:
            arguments |= {"stop_strings": list(self.stop), "tokenizer": tokenizer}
        return arguments
