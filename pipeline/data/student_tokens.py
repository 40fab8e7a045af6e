"""What a student reads and writes that has a tokenizer of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from pipeline.data.conversations import Turn
from pipeline.data.templates import end_token, render_paper
from pipeline.data.tokenizer import load_tokenizer
from pipeline.data.tokens import tokenize_prompt
from pipeline.errors import InputError, RowError
from pipeline.pretrained.load import load_error_reason


def load_student_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A student's tokenizer, by hub id or folder.

    Raises:
        InputError: there is none, or it has no token that ends an answer.
    """
    try:
        tokenizer = load_tokenizer(name)
    except Exception as error:
        raise InputError(
            f"{name}: holds no tokenizer ({load_error_reason(error)}); --student-tokenizer takes a hub id or"
            " folder that does"
        ) from error
    return require_end_token(tokenizer, name)


def require_end_token(
    tokenizer: PreTrainedTokenizerBase, name: str | Path
) -> PreTrainedTokenizerBase:
    """The tokenizer, which can end an answer.

    Raises:
        InputError: it cannot.
    """
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"{name}: the tokenizer names no end token, so a student could never learn to stop; "
            "name another with --student-tokenizer"
        )
    return tokenizer


def begin_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token before an answer's first: GPT-Neo has one for beginning and end."""
    begin = tokenizer.bos_token_id
    return int(tokenizer.eos_token_id if begin is None else begin)


def prompt_tokens(turns: Sequence[Turn] | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What a student has read before it writes: the begin token, and the turns where it is to read
    them (None: not)."""
    begin = [begin_token(tokenizer)]
    ids = [] if turns is None else _text_tokens(turns, tokenizer)
    return ids if ids[:1] == begin else begin + ids


def answer_tokens(words: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """An answer with the token that ends it."""
    return [*_words(words, tokenizer), int(tokenizer.eos_token_id)]


def _text_tokens(turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The turns in the paper's template. Where their words have control tokens, these are read as
    words."""
    try:
        return tokenize_prompt(turns, "paper", tokenizer)
    except RowError:
        end, ids = end_token(tokenizer), list[int]()
        for part in render_paper([*turns, Turn("assistant", "")], end)[:-1]:
            is_answer = part.learn or part.masked
            ids += _words(part.text.removesuffix(end) if is_answer else part.text, tokenizer)
            ids += [int(tokenizer.eos_token_id)] * is_answer
        return ids


def _words(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)[
        "input_ids"
    ]
    return ids
