"""`answer`: write a data set of a teacher's own answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cloup

from pipeline.answering.settings import (
    AnswerJobOptions,
    AnswerSettings,
    ComputeOptions,
    KeptOptions,
    TeacherPromptOptions,
)
from pipeline.commands.checks import require_data_set, require_teacher, utf8_text
from pipeline.commands.devices import require_device
from pipeline.commands.options_from import option_section
from pipeline.commands.shell import command
from pipeline.commands.writer_checks import checked_stop
from pipeline.data.options import RowOptions
from pipeline.generation.settings import Sampling


@cloup.command()
@option_section("The job", AnswerJobOptions)
@option_section("Data set", RowOptions)
@option_section("Prompts", TeacherPromptOptions)
@option_section("Answers", KeptOptions)
@option_section("Sampling", Sampling)
@option_section("Computing", ComputeOptions)
@command
def answer(*, as_json: bool, **options: Any) -> dict[str, Any]:
    """Answer the prompts of a data set with a whole causal LM, and write its answers as a data set
    for `extract` and `train`.

    Finished batches are durable: after a crash, repeat the command and it continues. The file
    appears when it is complete. Answers cut by --max-new-tokens are counted, never written.

    \b
    Examples:
      llm-modules answer --out answers.jsonl
      llm-modules answer --teacher model.gguf --dataset rows.jsonl --out answers.jsonl --keep right
      llm-modules answer --dataset rows.jsonl --out answers.jsonl --samples 4 --temperature 0.7
    """
    settings = AnswerSettings(**options)
    settings = replace(
        settings,
        stop=checked_stop(settings.stop),
        system=utf8_text(settings.system, "--system"),
    )
    settings.require_sense()
    require_device(settings.device)
    require_teacher(settings.teacher)
    require_data_set(settings.dataset)
    from pipeline.commands.running.answer import answer_and_report

    return answer_and_report(settings, as_json=as_json)
