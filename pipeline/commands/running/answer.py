"""`answer`: answer with a progress bar, and print the counts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from pipeline.answering.run import AnswerResult, answer
from pipeline.answering.settings import AnswerSettings
from pipeline.commands.counted import counted
from pipeline.commands.running.left_out import lines_left_out
from pipeline.progress import count_columns, shown_progress


def answer_and_report(settings: AnswerSettings, *, as_json: bool) -> dict[str, Any]:
    """Write a file of answers; print its counts unless `as_json`; return the result.

    Raises:
        CacheError, InputError, RunError: as `answer`.
    """
    with shown_progress(*count_columns()) as progress:
        result = answer(settings, progress)
    if not as_json:
        click.echo(_in_words(result))
    return asdict(result)


def _in_words(result: AnswerResult) -> str:
    finished = " (finished earlier)" if result.finished_earlier else ""
    resumed = f" ({result.resumed_answers:,} resumed)" if result.resumed_answers else ""
    dropped = {"not ended within --max-new-tokens": result.not_ended, **result.unusable}
    if result.score:
        dropped["wrong"] = result.wrong
    not_kept = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
    score = (
        f"score {result.score} ({result.score_reason});"
        f" {counted(result.unscorable, 'row')} without an answer that it can score\n"
        if result.score
        else ""
    )
    speed = (
        "" if result.tokens_per_second is None else f", {result.tokens_per_second:,.1f} tokens/s"
    )
    return (
        f"{result.out}{finished}: {counted(result.kept, 'row')}, from"
        f" {counted(result.answers, 'answer')}{resumed} to {counted(result.prompts, 'prompt')}\n"
        f"not kept: {not_kept}\n{score}"
        f"{lines_left_out(result.left_out, result.first_left_out, result.unread)}"
        f"{counted(result.tokens, 'token')} in {result.seconds:,.1f} s{speed}"
    )
