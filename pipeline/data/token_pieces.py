"""Tokenisation of a text in consecutive pieces."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_Spans = list[tuple[int, int]] | None
"""Begin and end of each token in the text, in characters."""


def token_pieces(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return the token ids of consecutive texts, after those that precede every text.

    The tokens are those of the whole text, so SentencePiece adds its blank to the first piece only.
    If a token would cross a border, the text is split there: then the tokens before an answer are
    the same in training, where the answer follows, as in generation, where it does not.
    """
    leading = _leading_ids(tokenizer, texts)
    ids, spans = _tokenize("".join(texts), tokenizer)
    cuts = _cuts(list(accumulate(map(len, texts))), len(ids), spans)
    if cuts is None:
        return [leading, *_piece_by_piece(texts, tokenizer)]
    return [leading, *(ids[start:stop] for start, stop in pairwise([0, *cuts]))]


def _piece_by_piece(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return tokens independent of later text; texts that change earlier tokens stay separate."""
    pieces: list[list[int]] = []
    before, ids_before, tokenize = "", list[int](), _tokenize
    for text in texts:
        ids, _ = tokenize(before + text, tokenizer)
        if ids[: len(ids_before)] == ids_before:
            pieces.append(ids[len(ids_before) :])
            before, ids_before = before + text, ids
        else:
            tokenize = _tokenize_continuation
            ids_before, _ = tokenize(text, tokenizer)
            pieces.append(ids_before)
            before = text
    return pieces


def _tokenize(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], _Spans]:
    """Return a text's token ids, and their spans if the tokenizer provides them."""
    if not tokenizer.is_fast:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"]), None
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
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
