"""The prompts of an evaluation, each with the answer that the data set gives; none that the student was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from cache import Cache
from pipeline.data.conversations import Conversation, Turn
from pipeline.data.said import said_of


@dataclass(frozen=True)
class HeldOutPrompts:
    """Conversations to answer, and how many were left out, by reason."""

    conversations: list[Conversation]
    left_out: dict[str, int]


def cached_rows(cache: Cache, indices: Iterable[int]) -> Iterator[Conversation]:
    """The conversations that some examples of a cache were made from.

    Raises:
        InputError: the cache keeps no texts of this program's making.
    """
    for index in indices:
        yield Conversation(cache.row_ids[index], said_of(cache, index).turns)


def unseen_prompts(
    rows: Sequence[Conversation],
    trained_on: Iterable[Conversation],
    *,
    too_long: Callable[[Conversation], str | None],
    count: int,
) -> HeldOutPrompts:
    """The first `count` rows that ask something which no training example asked.

    They are compared by what stands before the first answer, so it does not matter which file a row comes from.

    Args:
        rows: to choose from.
        trained_on: what the student has learned from.
        too_long: says why a row does not fit the students; None where it does.
        count: how many.
    """
    seen = {_asked(row) for row in trained_on}
    chosen: list[Conversation] = []
    left_out: dict[str, int] = {}
    for row in rows:
        if len(chosen) == count:
            break
        reason = None
        if not row.prompt_turns:
            reason = "asks nothing (plain text)"
        elif _asked(row) in seen:
            reason = "was trained on"
        else:
            reason = too_long(row)
        if reason is None:
            chosen.append(row)
        else:
            left_out[reason] = left_out.get(reason, 0) + 1
    return HeldOutPrompts(chosen, left_out)


def _asked(row: Conversation) -> tuple[Turn, ...]:
    """The turns before the first that the assistant says, or all of them."""
    first = next((number for number, turn in enumerate(row.turns) if turn.role == "assistant"), len(row.turns))
    return row.turns[:first]
