"""Control tokens, such as `<|im_end|>`, within the text of a row.

A tokenizer would read the characters as the token itself.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pipeline.data.conversations import Turn
from pipeline.errors import RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTROL_TOKENS = "control tokens in the text"


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the strings that a tokenizer reads as control tokens, longest first."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted(
        {*added, *map(str, tokenizer.all_special_tokens)} - {""},
        key=lambda text: (-len(text), text),
    )


def find_control_token(text: str, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the first control token in a text, or None."""
    match = _pattern(tokenizer).search(text)
    return match[0] if match else None


@functools.lru_cache(maxsize=4)
def _pattern(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, control_tokens(tokenizer))) or r"(?!)")


def require_no_control_tokens(turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a row whose text contains control tokens.

    Text that only mentions an end token would end the turn.

    Raises:
        RowError: names the turn and the token.
    """
    for number, turn in enumerate(turns):
        for text in _texts(turn):
            if token := find_control_token(text, tokenizer):
                raise RowError(
                    f"the text of turn {number} ({turn.role}) contains the control token {token!r};"
                    " write it in another way",
                    CONTROL_TOKENS,
                )


def _texts(turn: Turn) -> Iterator[str]:
    yield turn.text
    yield turn.fields
