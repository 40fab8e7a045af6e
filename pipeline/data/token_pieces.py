"""Token ids of a text that is put together from pieces, each token in the piece that it belongs
to."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_Spans = list[tuple[int, int]] | None


def token_pieces(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of some texts end to end, by text; the first list is what the tokenizer puts before
    every text.

    The tokens are those of the whole text: a SentencePiece tokenizer puts its blank before the
        first piece alone. Where a
    token would reach over a border, the text is split there: the tokens before an answer are then
    the same in training, where the answer follows, and in generation, where it does not."""
    leading = _leading_ids(tokenizer, texts)
    ids, spans = _read("".join(texts), tokenizer)
    cuts = _cuts(list(accumulate(map(len, texts))), len(ids), spans)
    if cuts is None:
        return [leading, *_piece_by_piece(texts, tokenizer)]
    return [leading, *(ids[start:stop] for start, stop in pairwise([0, *cuts]))]


def _piece_by_piece(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Tokens of each text that depend on no later one: where a text changes the tokens before it,
    it is read by itself."""
    pieces: list[list[int]] = []
    before, known, read = "", list[int](), _read
    for text in texts:
        ids, _ = read(before + text, tokenizer)
        if ids[: len(known)] == known:
            pieces.append(ids[len(known) :])
            before, known = before + text, ids
        else:
            read = _read_on
            known, _ = read(text, tokenizer)
            pieces.append(known)
            before = text
    return pieces


def _read(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], _Spans]:
    """Token ids of a text, and where each begins and ends in it; None where the tokenizer cannot
    say."""
    if not tokenizer.is_fast:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"]), None
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return list(found["input_ids"]), list(found["offset_mapping"])


def _read_on(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], _Spans]:
    """The same of a text in the middle of another: it follows the end token, which is no part of
    any word."""
    anchor = tokenizer.eos_token or tokenizer.sep_token
    if not isinstance(anchor, str):
        return _read(text, tokenizer)
    first, _ = _read(anchor, tokenizer)
    ids, spans = _read(anchor + text, tokenizer)
    if ids[: len(first)] != first:
        return _read(text, tokenizer)
    moved = (
        None
        if spans is None
        else [(begin - len(anchor), end - len(anchor)) for begin, end in spans[len(first) :]]
    )
    return ids[len(first) :], moved


def _cuts(borders: Sequence[int], tokens: int, spans: _Spans) -> list[int] | None:
    """How many tokens stand before each border; None unless at each a token ends and another
    begins, or the text does."""
    if spans is None:
        return None
    whole = [
        (place, begin, end) for place, (begin, end) in enumerate(spans) if begin < end
    ]  # a blank may have been trimmed away
    begins, ends = (
        {begin: place for place, begin, _ in reversed(whole)},
        {end for _, _, end in whole},
    )
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
    """The begin token, for tokenizers that put one before every text and unless the template wrote
    it."""
    bos = tokenizer.bos_token_id
    if bos is None or tokenizer("a")["input_ids"][:1] != [bos]:
        return []
    return [] if "".join(texts).startswith(str(tokenizer.bos_token)) else [bos]
