"""All conditions by name."""

from __future__ import annotations

from pipeline.conditions.interface import Condition
from pipeline.conditions.prompt import PromptCondition
from pipeline.conditions.sequence import SequenceCondition
from pipeline.conditions.tokens import NoneCondition, TextCondition

CONDITIONS: dict[str, Condition] = {
    condition.name: condition
    for condition in (SequenceCondition(), PromptCondition(), NoneCondition(), TextCondition())
}


def condition_named(name: str) -> Condition:
    """Return the condition of a name.

    Raises:
        ValueError: there is no such condition; lists all.
    """
    if name not in CONDITIONS:
        raise ValueError(f"condition {name!r} is not one of {', '.join(CONDITIONS)}")
    return CONDITIONS[name]
