"""The settings of `answer`: whose answers to which prompts, and which of them are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pipeline.choices import Precision
from pipeline.data.files import FILE_KINDS
from pipeline.data.options import RowOptions
from pipeline.data.templates import TemplateName
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.errors import InputError
from pipeline.generation.settings import Sampling
from pipeline.json_dataclasses import to_json
from pipeline.option import AnswerBatch, Device, Option
from pipeline.scoring.choose import require_score
from pipeline.scoring.option import ScoreName

_NOT_COMPARED = {"teacher", "dataset", "out", "device", "precision"}
"""Locations, which may change, and what the compute type follows from."""


@dataclass(frozen=True, kw_only=True)
class AnswerJobOptions:
    """Which teacher answers which prompts, and where its answers go."""

    teacher: Annotated[
        str,
        Option(
            "Causal LM that answers: hub id, local folder, or .gguf file.",
            default="the embedded teacher",
        ),
    ] = EMBEDDED_TEACHER
    dataset: Annotated[
        str,
        Option(
            "Data set with the prompts: what precedes the last answer of each row. Hub id, file,"
            f" folder of files, or quoted pattern of file names ({FILE_KINDS}).",
            default="the embedded data set",
        ),
    ] = EMBEDDED_DATASET
    out: Annotated[Path, Option("File to write, ending in .jsonl; an unfinished one is continued.")]


@dataclass(frozen=True, kw_only=True)
class TeacherPromptOptions:
    """What the teacher reads."""

    template: Annotated[
        TemplateName | None,
        Option(
            "Prompt template: the paper's, or the tokenizer's chat template.",
            default="chat, if the tokenizer has one",
        ),
    ] = None
    system: Annotated[
        str | None,
        Option("System prompt of all rows ('' for none).", default="that of each row, if any"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class KeptOptions:
    """How many answers are written per prompt, and which are kept."""

    samples: Annotated[int, Option("Answers per prompt, each a row of its own.", at_least=1)] = 1
    keep: Annotated[
        Literal["all", "right"],
        Option(
            "all: every answer that ends. right: of these, the ones that --score finds right"
            " against the row's own answer."
        ),
    ] = "all"
    score: ScoreName = "auto"


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """How the teacher computes."""

    batch_size: AnswerBatch = 16
    device: Device = "auto"
    precision: Annotated[Precision, Option("Compute type.")] = "auto"


@dataclass(frozen=True, kw_only=True)
class AnswerSettings(
    AnswerJobOptions, RowOptions, TeacherPromptOptions, KeptOptions, Sampling, ComputeOptions
):
    """One file of answers; each field is the option of that name of `answer`."""

    @property
    def compared(self) -> dict[str, Any]:
        """Return the options that a continued file must repeat, by their names."""
        return {
            f"--{name.replace('_', '-')}": value
            for name, value in to_json(self).items()
            if name not in _NOT_COMPARED
        }

    def require_sense(self) -> None:
        """Raise InputError for options that contradict each other."""
        require_score(self.score)
        if self.out.suffix != ".jsonl":
            raise InputError(f"--out {self.out}: rows are JSON lines; choose a name in .jsonl")
        if self.out.is_dir():
            raise InputError(f"--out {self.out}: is a folder; name a file in it")
        if self.samples > 1 and self.temperature == 0:
            raise InputError(
                f"--samples {self.samples}: without sampling all answers to a prompt are the same;"
                " set --temperature above 0"
            )
