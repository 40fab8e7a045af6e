"""Student tokens: prompts and answers in the student's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from pipeline.data.conversations import Turn
from pipeline.data.templates import end_token, render_paper
from pipeline.data.token_pieces import TokenPiece, literal_tokens
from pipeline.data.tokenizer import load_saved_tokenizer
from pipeline.data.tokens import LocatedTokens, locate_prompt, located_tokens
from pipeline.errors import InputError, RowError
from pipeline.pretrained.load import load_error_reason
from pipeline.pretrained.source import find_model


def load_student_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Return a student's tokenizer, by hub id, folder or GGUF file.

    Raises:
        InputError: it cannot be loaded, or has no end token.
    """
    source = find_model("tokenizer", name)
    try:
        tokenizer = load_saved_tokenizer(source.location, **source.options)
    except Exception as error:
        raise InputError(
            f"{name}: no usable tokenizer ({load_error_reason(error)}); name another with"
            " --student-tokenizer"
        ) from error
    return require_end_token(tokenizer, name)


def require_end_token(
    tokenizer: PreTrainedTokenizerBase, name: str | Path
) -> PreTrainedTokenizerBase:
    """Return the tokenizer if it has an end token.

    Raises:
        InputError: it has none.
    """
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"{name}: the tokenizer has no end token (eos_token), so a student could never stop;"
            " choose another with --student-tokenizer"
        )
    return tokenizer


def begin_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that precedes an answer: the end token if there is no begin token."""
    begin = tokenizer.bos_token_id
    return int(tokenizer.eos_token_id if begin is None else begin)


def prompt_tokens(turns: Sequence[Turn] | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the begin token and, unless `turns` is None, the prompt's tokens."""
    return [begin_token(tokenizer)] if turns is None else locate_prompt_tokens(turns, tokenizer).ids


def locate_prompt_tokens(
    turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase
) -> LocatedTokens:
    """Return the begin token and the prompt's tokens, and where each ends in the prompt's text.

    The prompt is in the paper's template; control tokens within its turns are read as plain text.
    """
    try:
        located = locate_prompt(turns, "paper", tokenizer)
    except RowError:
        located = _locate_literally(turns, tokenizer)
    begin = begin_token(tokenizer)
    if located.ids[:1] == [begin]:
        return located
    return LocatedTokens(
        text=located.text,
        ids=[begin, *located.ids],
        ends=None if located.ends is None else [0, *located.ends],
    )


def answer_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return an answer's tokens, the end token included."""
    return [*literal_tokens(text, tokenizer).ids, int(tokenizer.eos_token_id)]


def _locate_literally(turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase) -> LocatedTokens:
    """Return a prompt's tokens, part by part, without control tokens in its turns."""
    end, text, pieces = end_token(tokenizer), "", list[TokenPiece]()
    for part in render_paper([*turns, Turn("assistant", "")], end)[:-1]:
        is_answer = part.learn or part.masked
        words = part.text.removesuffix(end) if is_answer else part.text
        pieces.append(literal_tokens(words, tokenizer, start=len(text)))
        text += part.text
        if is_answer:
            pieces.append(TokenPiece([int(tokenizer.eos_token_id)], [len(text)]))
    return located_tokens(text, pieces)
