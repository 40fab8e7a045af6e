"""Settings fields that are also command-line options: `Annotated[int, Option("Help.")]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Option:
    """The option of a settings field; type, name and default are the field's.

    Attributes:
        help: a sentence or two.
        name: without dashes, where it is not the field's.
        metavar: stands for the value in the help.
        choices: names allowed; a `Literal` field has its own.
        at_least, at_most, above, below: limits of a number.
        default: description of the default, where its value says little.
        exists: a path must exist.
        takes_auto: a list of layers may be the word auto, which gives an empty tuple.
        with_commas: a field of several names takes one value with commas, not repeated options.
        negatable: a flag has a `--no-` form although it is off by default.
    """

    help: str
    name: str | None = None
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    default: str | None = None
    exists: bool = False
    with_commas: bool = False
    takes_auto: bool = False
    negatable: bool = False


Device = Annotated[str, Option("Compute device: auto, cpu, cuda, cuda:1, …")]
"""The device that computes."""
CACHE_LOCATION = "LOCATION"
"""Metavar of caches: a folder, or s3://bucket/prefix."""
MovedTeacher = Annotated[str | None, Option("Where the teacher is now, if it has moved.")]
MovedDataset = Annotated[str | None, Option("Where the data set is now, if it has moved.")]
SkipNonFinite = Annotated[
    bool, Option("Leave out, and count, rows whose hidden states have NaN or infinity.")
]
AnswerBatch = Annotated[int, Option("Prompts answered at a time.", at_least=1)]
MaxNewTokens = Annotated[int, Option("Longest answer, in tokens.", at_least=1)]

EARLIER_NAMES = {"gpt_neo_lr": "student_lr"}
"""Settings of release 0.1 that have other names now; options and stored runs may have both."""
EARLIER_VALUES = {"freeze": {"gpt-neo": "student"}}
"""Values of settings, likewise."""


def with_current_names(settings: dict[str, Any]) -> dict[str, Any]:
    """Return stored settings with the names and values that they have now."""
    current = {EARLIER_NAMES.get(name, name): value for name, value in settings.items()}
    for name, earlier in EARLIER_VALUES.items():
        if isinstance(values := current.get(name), list):
            current[name] = [earlier.get(value, value) for value in values]
    return current
