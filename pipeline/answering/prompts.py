"""The prompts of a data set, as the teacher reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pipeline.data.conversations import Conversation, Turn
from pipeline.data.groups import find_groups
from pipeline.data.sources import bad_row_error
from pipeline.data.templates import TemplateName
from pipeline.data.tokens import require_known_tokens, tokenize_prompt
from pipeline.errors import RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ASKS = ("user", "tool")
"""Roles that end a conversation whose answer is missing."""


@dataclass(frozen=True)
class Prompt:
    """A prompt.

    Attributes:
        row_id: of its row in the data set.
        turns: before the answer. Earlier answers are not the teacher's, and carry no loss.
        ids: the teacher's tokens.
        reference: the row's own answer; empty if it has none.
        group: id of the first row with the same prompt or of the same group.
    """

    row_id: str
    turns: tuple[Turn, ...]
    ids: list[int]
    reference: str
    group: str


@dataclass
class Prompts:
    """The prompts in the data set's order.

    Attributes:
        prompts: one for each row that was not left out.
        left_out: number of rows that were left out, by reason.
        first: the first unusable row and its problem, by reason.
    """

    prompts: list[Prompt] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)


class PromptReader:
    """Reads the prompts of conversations."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: TemplateName,
        *,
        system: str | None,
        longest: int | None,
        vocab_size: int,
        skip_bad_rows: bool,
    ) -> None:
        """Prepare to read.

        Args:
            tokenizer: the teacher's.
            template: how turns become text.
            system: the system prompt of all rows, '' for none; None: the rows' own.
            longest: most tokens of a prompt; None: any number.
            vocab_size: rows of the teacher's embeddings.
            skip_bad_rows: leave out and count unusable rows instead of failing at the first.
        """
        self._tokenizer, self._template = tokenizer, template
        self._system, self._longest, self._vocab_size = system, longest, vocab_size
        self._skip_bad_rows = skip_bad_rows

    def read(self, conversations: Sequence[Conversation]) -> Prompts:
        """Return the prompts; rows without one, and those that are too long, are left out.

        Raises:
            InputError: names a row that cannot be rendered.
        """
        rows = [replace(row, turns=self._turns(row)) for row in conversations]
        references = {row.row_id: row.reference for row in conversations}
        groups = _groups([row for row in rows if row.turns])
        found = Prompts()
        for row in rows:
            if not row.turns:
                found.left_out["without a prompt (nothing before an answer)"] += 1
                continue
            try:
                ids = tokenize_prompt(row.turns, self._template, self._tokenizer)
                require_known_tokens(ids, self._vocab_size, self._tokenizer)
            except RowError as error:
                where = row.where or f"row {row.row_id}"
                if not self._skip_bad_rows:
                    raise bad_row_error(where, error) from error
                found.left_out[error.kind] += 1
                found.first.setdefault(error.kind, f"{where}: {error}")
                continue
            if self._longest is not None and len(ids) > self._longest:
                found.left_out[f"prompts over {self._longest} tokens"] += 1
                continue
            found.prompts.append(
                Prompt(row.row_id, row.turns, ids, references[row.row_id], groups[row.row_id])
            )
        return found

    def _turns(self, row: Conversation) -> tuple[Turn, ...]:
        """Return the turns before a row's answer, or all if it ends without one."""
        turns = row.prompt_turns
        if not turns and row.turns and row.turns[-1].role in _ASKS:
            turns = row.turns
        turns = tuple(
            replace(turn, learn=False) if turn.role == "assistant" else turn for turn in turns
        )
        if not turns or self._system is None:
            return turns
        tools = tuple(turn for turn in turns if turn.role == "tools")
        system = (Turn("system", self._system),) if self._system else ()
        others = (turn for turn in turns if turn.role not in ("tools", "system"))
        return (*tools, *system, *others)


def _groups(rows: Sequence[Conversation]) -> dict[str, str]:
    """Return the id of the first row of each row's group; a single row is its own group."""
    numbers = find_groups(rows)
    first: dict[int, str] = {}
    return {
        row.row_id: (
            first.setdefault(numbers[row.row_id], row.row_id)
            if row.row_id in numbers
            else row.row_id
        )
        for row in rows
    }
