"""Rendering of conversations as text by the paper's template or the tokenizer's chat template.

A template yields parts. The teacher reads their concatenation; answers begin and end at borders.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.data.control_tokens import require_no_control_tokens
from pipeline.data.conversations import Turn
from pipeline.data.render_check import require_all_rendered
from pipeline.data.template_date import fix_template_date
from pipeline.errors import InputError, RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TemplateName = Literal["paper", "chat"]
TEMPLATE_NAMES: tuple[TemplateName, ...] = ("paper", "chat")
REFUSED_BY_TEMPLATE = "refused by the chat template"


@dataclass(frozen=True)
class TextPart:
    """A part of a rendered conversation.

    Attributes:
        text: the characters.
        learn: whether it is an answer to learn, including its end token.
        masked: whether it carries no loss even with `--loss-on all`.
    """

    text: str
    learn: bool
    masked: bool = False


def render(
    turns: Sequence[Turn], template: TemplateName, tokenizer: PreTrainedTokenizerBase
) -> list[TextPart]:
    """Return the parts of a whole conversation.

    Raises:
        InputError: the tokenizer has no chat template.
        RowError: the template refuses, rewrites or drops a turn, or a text contains control tokens.
    """
    require_no_control_tokens(turns, tokenizer)
    if turns and turns[0].role == "text":
        return [TextPart(turns[0].text + end_token(tokenizer), learn=True)]
    return (
        render_paper(turns, end_token(tokenizer))
        if template == "paper"
        else _render_chat(turns, tokenizer)
    )


def render_prompt(
    turns: Sequence[Turn], template: TemplateName, tokenizer: PreTrainedTokenizerBase
) -> list[TextPart]:
    """Return the parts that `render` puts before the next answer.

    Raises:
        InputError: as `render`.
        RowError: as `render`.
    """
    require_no_control_tokens(turns, tokenizer)
    if template == "paper":
        return render_paper([*turns, Turn("assistant", "")], end_token(tokenizer))[:-1]
    whole = _apply_chat_template(turns, tokenizer, ask=True)
    try:
        earlier = _render_chat(turns, tokenizer)
    except RowError:  # unusable for training, so there are no parts to match
        return [TextPart(whole, learn=False)]
    while earlier and not (earlier[-1].learn or earlier[-1].masked):
        earlier.pop()
    done = "".join(part.text for part in earlier)
    if not whole.startswith(done):
        return [TextPart(whole, learn=False)]
    return [*earlier, TextPart(whole[len(done) :], learn=False)]


def end_token_id(template: TemplateName, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that ends an answer under a template, at which generation stops.

    Raises:
        InputError: the chat template ends answers without a special token.
    """
    answer = render([Turn("user", "a"), Turn("assistant", "b")], template, tokenizer)[1].text
    last = int(tokenizer(answer, add_special_tokens=False)["input_ids"][-1])
    if last not in tokenizer.added_tokens_decoder:
        raise InputError(
            "the tokenizer's chat template ends answers without a special token; use --template"
            " paper"
        )
    return last


def end_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the token that ends an answer, as text.

    Raises:
        InputError: the tokenizer has none.
    """
    token = tokenizer.eos_token or tokenizer.sep_token
    if not isinstance(token, str):
        raise InputError(
            "the teacher's tokenizer has no end token (eos_token or sep_token), so a student could"
            " never stop; add one to its tokenizer_config.json"
        )
    return token


_HEADINGS = {"user": "User:\n", "tool": "Tool:\n", "tools": "Tools:\n", "system": ""}


def render_paper(turns: Sequence[Turn], end: str) -> list[TextPart]:
    """Return the paper's format: system prompt, then turns under headings, `end` after answers."""
    parts: list[TextPart] = []
    before = ""
    for turn in turns:
        if turn.role == "assistant":
            answer = TextPart(turn.plain_text + end, learn=turn.learn, masked=not turn.learn)
            parts += [TextPart(f"{before}Assistant:\n", learn=False), answer]
            before = "\n\n"
        else:
            before += f"{_HEADINGS[turn.role]}{turn.text}\n\n"
    if before.strip():
        parts.append(TextPart(before.rstrip("\n"), learn=False))
    return parts


def _render_chat(turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase) -> list[TextPart]:
    """Return the chat template's output, split where each assistant turn begins and ends."""
    parts: list[TextPart] = []
    answers: dict[int, str] = {}
    done = ""
    for index, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        after = _apply_chat_template(turns[: index + 1], tokenizer, ask=False)
        before = _before_answer(turns[: index + 1], after, tokenizer)
        if not (before.startswith(done) and after.startswith(before)):
            raise RowError(
                "the tokenizer's chat template rewrites earlier turns when later ones follow; use"
                " --template paper",
                REFUSED_BY_TEMPLATE,
            )
        answer = after[len(before) :].rstrip()
        parts += [
            TextPart(before[len(done) :], learn=False),
            TextPart(answer, learn=turn.learn, masked=not turn.learn),
        ]
        answers[index] = answer
        done = before + answer
    whole = _apply_chat_template(turns, tokenizer, ask=False)
    if rest := whole[len(done) :].rstrip():
        parts.append(TextPart(rest, learn=False))
    require_all_rendered(turns, whole, answers)
    return parts


def _before_answer(turns: Sequence[Turn], after: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the rendered text before the last turn; `after` is the rendering of all turns.

    Many templates render no prompt without a user turn; there, the answer's text is searched for.
    """
    if any(turn.role == "user" for turn in turns):
        return _apply_chat_template(turns[:-1], tokenizer, ask=True)
    try:
        before = _apply_chat_template(turns[:-1], tokenizer, ask=True)
    except RowError:
        before = ""
    if before and after.startswith(before):
        return before
    answer = turns[-1].text.strip()
    if not answer or after.count(answer) != 1:
        raise RowError(
            "the tokenizer's chat template renders no prompt without a user message, so the start"
            " of the answer is unknown; use --template paper",
            REFUSED_BY_TEMPLATE,
        )
    return after[: after.find(answer)]


def _apply_chat_template(
    turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase, *, ask: bool
) -> str:
    if tokenizer.chat_template is None:
        raise InputError("the teacher's tokenizer has no chat template; use --template paper")
    messages = [turn.message for turn in turns if turn.role != "tools"]
    tools = [
        tool for turn in turns if turn.role == "tools" for tool in json.loads(turn.text)
    ] or None
    try:
        template = fix_template_date(tokenizer.get_chat_template(None, tools))
        return str(
            tokenizer.apply_chat_template(
                messages,
                tools=tools,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=ask,
            )
        )
    except Exception as error:  # a template is a program and may raise anything
        raise RowError(
            f"the tokenizer's chat template refused the row ({error}); use --template paper",
            REFUSED_BY_TEMPLATE,
        ) from error
