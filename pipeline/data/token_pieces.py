"""Tokenisation of a text in consecutive pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_Spans = list[tuple[int, int]] | None
"""Begin and end of each token in the text, in characters."""


@dataclass(frozen=True)
class TokenPiece:
    """The tokens of one of several consecutive texts.

    Attributes:
        ids: the tokens.
        ends: where each ends in the joined texts, in characters; None if the tokenizer does not
            tell.
    """

    ids: list[int]
    ends: list[int] | None


def token_pieces(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return the token ids of consecutive texts, after those that precede every text.

    The tokens are those of the whole text, so SentencePiece adds its blank to the first piece only.
    If a token would cross a border, the text is split there: then the tokens before an answer are
    the same in training, where the answer follows, as in generation, where it does not.
    """
    return [piece.ids for piece in located_pieces(texts, tokenizer)]


def literal_tokens(text: str, tokenizer: PreTrainedTokenizerBase, *, start: int = 0) -> TokenPiece:
    """Return the tokens of a text, its control tokens read as plain text.

    Args:
        text: the text.
        tokenizer: the tokenizer.
        start: where the text begins in the joined texts, in characters.
    """
    ids, spans = _tokenize(text, tokenizer, split_special_tokens=True)
    return TokenPiece(ids, _ends(spans, start))


def located_pieces(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[TokenPiece]:
    """Return what `token_pieces` does, and where each token ends."""
    leading = _leading_ids(tokenizer, texts)
    first = TokenPiece(leading, [0] * len(leading))
    ids, spans = _tokenize("".join(texts), tokenizer)
    cuts = _cuts(list(accumulate(map(len, texts))), len(ids), spans)
    if cuts is None:
        return [first, *_piece_by_piece(texts, tokenizer)]
    ends = _ends(spans, 0)
    return [
        first,
        *(
            TokenPiece(ids[start:stop], None if ends is None else ends[start:stop])
            for start, stop in pairwise([0, *cuts])
        ),
    ]


def _ends(spans: _Spans, offset: int) -> list[int] | None:
    """Return the ends of tokens, moved by `offset`; that of an empty token is the one before."""
    return None if spans is None else list(accumulate((offset + end for _, end in spans), max))


def _piece_by_piece(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[TokenPiece]:
    """Return tokens independent of later text; texts that change earlier tokens stay separate."""
    pieces: list[TokenPiece] = []
    before, ids_before, offset = "", list[int](), 0
    tokenize: Callable[[str, PreTrainedTokenizerBase], tuple[list[int], _Spans]] = _tokenize
    for text in texts:
        ids, spans = tokenize(before + text, tokenizer)
        ends = _ends(spans, offset)
        if ids[: len(ids_before)] == ids_before:
            done = len(ids_before)
            pieces.append(TokenPiece(ids[done:], None if ends is None else ends[done:]))
            before, ids_before = before + text, ids
        else:
            tokenize, offset = _tokenize_continuation, offset + len(before)
            ids_before, spans = tokenize(text, tokenizer)
            pieces.append(TokenPiece(ids_before, _ends(spans, offset)))
            before = text
    return pieces


def _tokenize(
    text: str, tokenizer: PreTrainedTokenizerBase, **options: bool
) -> tuple[list[int], _Spans]:
    """Return a text's token ids, and their spans if the tokenizer provides them."""
    if not tokenizer.is_fast:
        return list(tokenizer(text, add_special_tokens=False, **options)["input_ids"]), None
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, **options)
    return list(encoding["input_ids"]), list(encoding["offset_mapping"])


def _tokenize_continuation(
    text: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], _Spans]:
    """Tokenise a text as if it followed the end token, which merges with no other token."""
    anchor = tokenizer.eos_token or tokenizer.sep_token
    if not isinstance(anchor, str):
        return _tokenize(text, tokenizer)
    first, _ = _tokenize(anchor, tokenizer)
    ids, spans = _tokenize(anchor + text, tokenizer)
    if ids[: len(first)] != first:
        return _tokenize(text, tokenizer)
    moved = (
        None
        if spans is None
        else [(begin - len(anchor), end - len(anchor)) for begin, end in spans[len(first) :]]
    )
    return ids[len(first) :], moved


def _cuts(borders: Sequence[int], tokens: int, spans: _Spans) -> list[int] | None:
    """Return the number of tokens before each border; None if a token crosses one."""
    if spans is None:
        return None
    # A token whose blank was trimmed away is empty.
    nonempty = [(index, begin, end) for index, (begin, end) in enumerate(spans) if begin < end]
    begins = {begin: index for index, begin, _ in reversed(nonempty)}
    ends = {end for _, _, end in nonempty}
    cuts = []
    for border in borders:
        if border == borders[-1]:
            cuts.append(tokens)
        elif border == 0:
            cuts.append(0)
        elif border in begins and border in ends:
            cuts.append(begins[border])
        else:
            return None
    return cuts


def _leading_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    """Return the begin token if the tokenizer adds one and the template did not write it."""
    bos = tokenizer.bos_token_id
    if bos is None or tokenizer("a")["input_ids"][:1] != [bos]:
        return []
    return [] if "".join(texts).startswith(str(tokenizer.bos_token)) else [bos]
