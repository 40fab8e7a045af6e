"""Conversations as text: which words surround the turns, and which of the text a student learns to write.

A template yields segments. Each segment is tokenised by itself, so the tokens of a prompt are the same in training,
where an answer follows, and in generation, where it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.data.conversations import Turn
from pipeline.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TemplateName = Literal["paper", "chat"]
TEMPLATE_NAMES: tuple[TemplateName, ...] = ("paper", "chat")


@dataclass(frozen=True)
class Segment:
    """A stretch of text; `learn` marks what the assistant writes, its end token included."""

    text: str
    learn: bool


def render(turns: Sequence[Turn], template: TemplateName, tokenizer: PreTrainedTokenizerBase) -> list[Segment]:
    """Render a whole conversation.

    Raises:
        InputError: the tokenizer has no chat template, or its template rewrites earlier turns.
    """
    if turns and turns[0].role == "text":
        return [Segment(turns[0].text + end_token(tokenizer), learn=True)]
    return _render_paper(turns, end_token(tokenizer)) if template == "paper" else _render_chat(turns, tokenizer)


def render_prompt(turns: Sequence[Turn], template: TemplateName, tokenizer: PreTrainedTokenizerBase) -> list[Segment]:
    """Render turns up to where the assistant begins to write; the same segments that `render` puts before the answer."""
    if template == "paper":
        return _render_paper([*turns, Turn("assistant", "")], end_token(tokenizer))[:-1]
    whole = _apply_chat_template(turns, tokenizer, ask=True)
    try:
        earlier = _render_chat(turns, tokenizer)
    except InputError:  # a template that rewrites earlier turns: nothing can be learned from such, so nothing has to be the same
        return [Segment(whole, learn=False)]
    while earlier and not earlier[-1].learn:
        earlier.pop()
    done = sum(len(segment.text) for segment in earlier)
    return [*earlier, Segment(whole[done:], learn=False)]


def end_token_id(template: TemplateName, tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends an answer under a template, at which a student is to stop.

    Raises:
        InputError: the chat template ends answers with no token of its own.
    """
    answer = render([Turn("user", "a"), Turn("assistant", "b")], template, tokenizer)[1].text
    last = int(tokenizer(answer, add_special_tokens=False)["input_ids"][-1])
    if last not in tokenizer.added_tokens_decoder:
        raise InputError("the tokenizer's chat template ends answers with no token of its own; use --template paper")
    return last


def end_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """The token that ends an answer, as text."""
    token = tokenizer.eos_token or tokenizer.sep_token
    if not isinstance(token, str):
        raise InputError(
            "the teacher's tokenizer names no end token (eos_token or sep_token), so a student could never learn to stop; add "
            "one to its tokenizer_config.json"
        )
    return token


def _render_paper(turns: Sequence[Turn], end: str) -> list[Segment]:
    """The Stratos form: the system prompt, then question and answer under plain headings, each answer ended."""
    segments: list[Segment] = []
    asked = ""
    for turn in turns:
        if turn.role == "assistant":
            segments += [Segment(f"{asked}Assistant:\n", learn=False), Segment(turn.text + end, learn=True)]
            asked = "\n\n"
        else:
            asked += f"{turn.text}\n\n" if turn.role == "system" else f"User:\n{turn.text}\n\n"
    if asked.strip():
        segments.append(Segment(asked.rstrip("\n"), learn=False))
    return segments


def _render_chat(turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase) -> list[Segment]:
    """The tokenizer's own chat template, split where each assistant turn begins and ends."""
    segments: list[Segment] = []
    done = ""
    for index, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        before = _apply_chat_template(turns[:index], tokenizer, ask=True)
        after = _apply_chat_template(turns[: index + 1], tokenizer, ask=False)
        if not (before.startswith(done) and after.startswith(before)):
            raise InputError("the tokenizer's chat template rewrites earlier turns when later ones follow; use --template paper")
        answer = after[len(before) :].rstrip()
        segments += [Segment(before[len(done) :], learn=False), Segment(answer, learn=True)]
        done = before + answer
    rest = _apply_chat_template(turns, tokenizer, ask=False)[len(done) :].rstrip()
    if rest:
        segments.append(Segment(rest, learn=False))
    return segments


def _apply_chat_template(turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase, *, ask: bool) -> str:
    if tokenizer.chat_template is None:
        raise InputError("the teacher's tokenizer has no chat template; use --template paper")
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask))
    except Exception as error:  # a template is a program of its author's: it may raise anything
        raise InputError(f"the tokenizer's chat template refused a conversation ({error}); use --template paper") from error
