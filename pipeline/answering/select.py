"""Select the answers to keep, and write them as rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.answering.prepare import AnswerPlan
from pipeline.data.chat_rows import chat_row
from pipeline.data.control_tokens import require_no_control_tokens
from pipeline.data.conversations import Turn
from pipeline.data.forms import read_row
from pipeline.errors import InputError, RowError
from pipeline.generation.answers import Written
from pipeline.progress import Progress


@dataclass
class Selection:
    """The rows of a file, and the number of answers that are not among them.

    Attributes:
        lines: the rows as JSON lines, in the data set's order.
        not_ended: answers that `--max-new-tokens` cut.
        unusable: answers that cannot be read as a row again, by reason.
        wrong: answers that the score finds wrong.
    """

    lines: list[bytes] = field(default_factory=list)
    not_ended: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    wrong: int = 0


def select(plan: AnswerPlan, answers: Sequence[Written], progress: Progress) -> Selection:
    """Return the rows of the answers to keep.

    Args:
        plan: of the file.
        answers: by number.
        progress: counts them.

    Raises:
        InputError: a user-defined score fails, or finds an answer neither right nor wrong.
    """
    selection = Selection()
    progress.stage("rows", len(answers))
    for number, answer in enumerate(answers):
        progress.advance()
        if not answer.stopped:
            selection.not_ended += 1
            continue
        try:
            line = _line(plan, number, answer.text)
        except RowError as error:
            selection.unusable["empty" if not answer.text.strip() else error.kind] += 1
            continue
        if _is_right(plan, number, answer.text):
            selection.lines.append(line)
        else:
            selection.wrong += 1
    return selection


def _line(plan: AnswerPlan, number: int, text: str) -> bytes:
    """Return an answer's row as a line.

    Raises:
        RowError: it could not be read again.
    """
    prompt, samples = plan.prompt_of(number), plan.settings.samples
    turns = (*prompt.turns, Turn("assistant", text))
    sample = f"-{number % samples}" if samples > 1 else ""
    row = chat_row(turns, id=prompt.row_id + sample, group=prompt.group)
    read_row(row, "chat")
    require_no_control_tokens(turns, plan.tokenizer)
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _is_right(plan: AnswerPlan, number: int, text: str) -> bool:
    """Return whether an answer is right; all are without a score."""
    if plan.chosen is None:
        return True
    score = plan.chosen.score
    value = score.score(text, plan.prompt_of(number).reference)
    if value not in (0, 1):
        raise InputError(
            f"--keep right: --score {score.name} returned {value:g} for the answer {text[:60]!r};"
            " return 0 or 1, or a bool"
        )
    return value == 1
