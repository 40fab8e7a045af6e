"""Token ids and loss mask of rendered conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.choices import LossOn
from pipeline.data.conversations import Turn
from pipeline.data.templates import TemplateName, TextPart, render_prompt
from pipeline.data.token_pieces import TokenPiece, located_pieces, token_pieces
from pipeline.errors import RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenize_parts(
    parts: Sequence[TextPart], tokenizer: PreTrainedTokenizerBase, loss_on: LossOn = "assistant"
) -> tuple[list[int], list[bool]]:
    """Return token ids and loss mask of rendered parts."""
    pieces = token_pieces([part.text for part in parts], tokenizer)
    ids = [token for piece in pieces for token in piece]
    return ids, loss_mask(parts, pieces, loss_on)


def loss_mask(
    parts: Sequence[TextPart], pieces: Sequence[Sequence[int]], loss_on: LossOn
) -> list[bool]:
    """Return the loss mask of rendered parts.

    Args:
        parts: of the conversation.
        pieces: the tokens that the tokenizer puts before every text, then those of each part.
        loss_on: `assistant` marks the answers to learn, `all` everything but excluded turns.
    """
    everything = loss_on == "all"
    learned = [everything, *(part.learn or (everything and not part.masked) for part in parts)]
    return [learn for learn, piece in zip(learned, pieces, strict=True) for _ in piece]


@dataclass(frozen=True)
class LocatedTokens:
    """The tokens of a text.

    Attributes:
        text: the characters.
        ids: the tokens.
        ends: where each ends in the text, in characters; None if the tokenizer does not tell.
    """

    text: str
    ids: list[int]
    ends: list[int] | None


def located_tokens(text: str, pieces: Sequence[TokenPiece]) -> LocatedTokens:
    """Return the tokens of a text from those of its pieces."""
    ends = [piece.ends for piece in pieces]
    return LocatedTokens(
        text=text,
        ids=[token for piece in pieces for token in piece.ids],
        ends=(
            None
            if any(of_piece is None for of_piece in ends)
            else [end for of_piece in ends for end in of_piece or ()]
        ),
    )


def locate_prompt(
    turns: Sequence[Turn], template: TemplateName, tokenizer: PreTrainedTokenizerBase
) -> LocatedTokens:
    """Return the tokens of `tokenize_prompt`, and where each ends."""
    texts = [part.text for part in render_prompt(turns, template, tokenizer)]
    return located_tokens("".join(texts), located_pieces(texts, tokenizer))


def tokenize_prompt(
    turns: Sequence[Turn], template: TemplateName, tokenizer: PreTrainedTokenizerBase
) -> list[int]:
    """Return the token ids of a prompt, up to where the answer begins."""
    return locate_prompt(turns, template, tokenizer).ids


def require_known_tokens(
    ids: Sequence[int] | npt.NDArray[np.int32],
    vocab_size: int | None,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Refuse tokens without an embedding; a `vocab_size` of None allows all.

    Raises:
        RowError: names the first such token.
    """
    if vocab_size is None:
        return
    ids = np.asarray(ids, np.int32)
    unknown = np.flatnonzero((ids < 0) | (ids >= vocab_size))
    if len(unknown):
        token = int(ids[unknown[0]])
        name = tokenizer.convert_ids_to_tokens(token) if 0 <= token < len(tokenizer) else None
        raise RowError(
            f"token {unknown[0]} is {token}{'' if name is None else f' ({name})'}, and the model"
            f" only has embeddings for 0 to {vocab_size - 1}; use the model's own tokenizer",
            "tokens beyond the teacher's embeddings",
        )
