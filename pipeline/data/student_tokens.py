"""Student tokens: prompts and answers in the student's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from pipeline.data.conversations import Turn
from pipeline.data.templates import end_token, render_paper
from pipeline.data.tokenizer import load_saved_tokenizer
from pipeline.data.tokens import tokenize_prompt
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
    begin = [begin_token(tokenizer)]
    ids = [] if turns is None else _text_tokens(turns, tokenizer)
    return ids if ids[:1] == begin else begin + ids


def answer_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return an answer's tokens, the end token included."""
    return [*_literal_tokens(text, tokenizer), int(tokenizer.eos_token_id)]


def _text_tokens(turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the turns in the paper's template, control tokens within them read as plain text."""
    try:
        return tokenize_prompt(turns, "paper", tokenizer)
    except RowError:
        end, ids = end_token(tokenizer), list[int]()
        for part in render_paper([*turns, Turn("assistant", "")], end)[:-1]:
            is_answer = part.learn or part.masked
            ids += _literal_tokens(
                part.text.removesuffix(end) if is_answer else part.text, tokenizer
            )
            ids += [int(tokenizer.eos_token_id)] * is_answer
        return ids


def _literal_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of a text without special tokens."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)[
        "input_ids"
    ]
    return ids
