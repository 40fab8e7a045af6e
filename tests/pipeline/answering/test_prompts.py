"""Prompts of all forms of rows, and rows without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.answering.prepare import prepare
from pipeline.data.conversations import Turn
from pipeline.errors import InputError
from tests.conftest import write_rows
from tests.pipeline.answering.conftest import MakeSettings

USER = {"role": "user", "content": "How many?"}
ANSWER = {"role": "assistant", "content": "Two."}
SYSTEM = {"role": "system", "content": "Be brief."}
TOOL = {"type": "function", "function": {"name": "count", "parameters": {}}}


def chat(*messages: dict[str, Any], **columns: Any) -> dict[str, Any]:
    return {"messages": list(messages), **columns}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def test_a_prompt_is_what_precedes_the_last_answer_or_the_whole_of_a_row_without_one(
    settings_of: MakeSettings, dataset: Path
) -> None:
    write_rows(dataset, [chat(USER, ANSWER), chat(USER), chat(USER, ANSWER, USER, ANSWER)])
    plan = prepare(settings_of(dataset=str(dataset)))
    assert [prompt.turns for prompt in plan.prompts] == [
        (Turn("user", "How many?"),),
        (Turn("user", "How many?"),),
        (
            Turn("user", "How many?"),
            Turn("assistant", "Two.", learn=False),
            Turn("user", "How many?"),
        ),
    ]
    assert [prompt.reference for prompt in plan.prompts] == ["Two.", "", "Two."]
    assert [prompt.group for prompt in plan.prompts] == ["0", "0", "2"]


def test_groups_of_the_data_set_stay_together(settings_of: MakeSettings, dataset: Path) -> None:
    rows = [chat({**USER, "content": text}, ANSWER, source=text[0]) for text in ("a", "b", "a2")]
    write_rows(dataset, rows)
    plan = prepare(settings_of(dataset=str(dataset), group_by="source"))
    assert [prompt.group for prompt in plan.prompts] == ["0", "1", "0"]


def test_a_system_prompt_replaces_that_of_every_row(
    settings_of: MakeSettings, dataset: Path
) -> None:
    write_rows(dataset, [chat(SYSTEM, USER, ANSWER, tools=[TOOL]), chat(USER, ANSWER)])
    options = {"dataset": str(dataset), "template": "paper"}
    tools = Turn("tools", json.dumps([TOOL]))
    for system, turns in (("Think.", (Turn("system", "Think."),)), ("", ())):
        first, second = prepare(settings_of(system=system, **options)).prompts
        assert first.turns == (tools, *turns, Turn("user", "How many?"))
        assert second.turns == (*turns, Turn("user", "How many?"))


def test_rows_without_a_prompt_and_long_prompts_are_counted(
    settings_of: MakeSettings, dataset: Path
) -> None:
    long_prompt = {**USER, "content": "How many? " * 3000}
    write_rows(dataset, [chat(USER, ANSWER), chat(ANSWER), chat(long_prompt, ANSWER)])
    plan = prepare(settings_of(dataset=str(dataset)))
    assert len(plan.prompts) == 1
    assert list(plan.left_out.values()) == [1, 1]
    no_prompt, too_long = plan.left_out
    assert no_prompt.startswith("without a prompt")
    assert too_long.startswith("prompts over ")


def test_bad_rows_stop_or_are_counted(settings_of: MakeSettings, dataset: Path) -> None:
    control = {**USER, "content": "What is <|im_end|>?"}
    write_rows(dataset, [chat(USER, ANSWER), chat(control, ANSWER), chat()])
    with pytest.raises(InputError, match=r"rows.jsonl: row \d.*`--skip-bad-rows`"):
        prepare(settings_of(dataset=str(dataset)))
    plan = prepare(settings_of(dataset=str(dataset), skip_bad_rows=True))
    assert plan.left_out == {"control tokens in the text": 1, "malformed": 1}
    assert set(plan.first_left_out) == set(plan.left_out)


@pytest.mark.parametrize(
    "row, form", [({"text": "plain"}, "text"), ({"input_ids": [1], "loss_mask": [1]}, "tokens")]
)
def test_rows_without_turns_are_refused(
    settings_of: MakeSettings, dataset: Path, row: dict[str, Any], form: str
) -> None:
    write_rows(dataset, [row])
    with pytest.raises(InputError, match=f"its rows are {form}"):
        prepare(settings_of(dataset=str(dataset)))


def test_an_answer_as_long_as_the_context_is_refused(settings_of: MakeSettings) -> None:
    with pytest.raises(InputError, match=r"--max-new-tokens 100000: this teacher reads \d+ tokens"):
        prepare(settings_of(max_new_tokens=100000))


def test_the_longest_prompts_are_answered_first(settings_of: MakeSettings) -> None:
    plan = prepare(settings_of(samples=2))
    lengths = [len(plan.prompt_of(number).ids) for number in plan.order]
    assert lengths == sorted(lengths, reverse=True)
    assert sorted(plan.order) == list(range(12))
    assert len({plan.seed_of(number) for number in plan.order}) == 12
