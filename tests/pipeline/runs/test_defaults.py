"""Defaults that follow from other options."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from pipeline.option import Option
from pipeline.runs import defaults
from pipeline.runs.defaults import with_defaults
from pipeline.runs.settings import TrainSettings

PAPER = {"batch_size": 1, "bridge_lr": 1e-4, "student_lr": 5e-5, "schedule": "constant"}


def settings(**options: Any) -> TrainSettings:
    return TrainSettings(cache=Path("cache"), run=Path("run"), **options)


@pytest.mark.parametrize("condition", ["sequence", "none"])
def test_other_conditions_keep_the_papers(condition: str) -> None:
    plain = settings(condition=condition)
    assert with_defaults(plain, {"condition"}) == plain
    assert {name: getattr(plain, name) for name in PAPER} == PAPER


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"layers": (), "batch_size": 32, "bridge_lr": 1e-3, "student_lr": 1e-3}),
        ({}, {"schedule": "linear", "patience": 0, "warmup": 0.05, "weight_decay": 0.3}),
        ({"condition": "text"}, {"layers": (-1,), "batch_size": 32, "student_lr": 1e-3}),
        ({"student": "gpt2"}, {"student_lr": 5e-5, "weight_decay": 0.01, "cross_every": 4}),
        ({"student": "gpt2"}, {"prompt_text": True, "gate": "static"}),
        ({"student": "gpt2", "gate": "channel"}, {"gate": "channel"}),
        ({"student": "gpt2", "new_weights": True}, {"gate": "channel"}),
        ({"student": "gpt2", "condition": "text"}, {"gate": "channel", "cross_every": 2}),
        ({"student": "gpt2", "prompt_text": False}, {"prompt_text": False}),
        ({"student": "gpt2", "condition": "text"}, {"prompt_text": False, "batch_size": 32}),
        ({"student": "tiny"}, {"prompt_text": False}),
        ({"student": "gpt2", "lora": 8}, {"student_lr": 2e-4, "bridge_lr": 1e-3}),
        ({"student": "gpt2", "new_weights": True}, {"student_lr": 1e-3, "cross_every": 1}),
        ({"batch_tokens": 512}, {"batch_size": 1}),
        ({"patience": 3}, {"schedule": "constant", "patience": 3}),
        ({"patience": 0}, {"schedule": "linear", "patience": 0}),
        ({"schedule": "constant"}, {"schedule": "constant", "patience": 5}),
        ({"layers": (-1,), "weight_decay": 0.0}, {"layers": (-1,), "weight_decay": 0.0}),
    ],
)
def test_defaults_with_prompts_follow_from_the_options_given(
    options: dict[str, Any], expected: dict[str, Any]
) -> None:
    complete = {"condition": "prompt"} | options
    found = with_defaults(settings(**complete), {*complete})
    assert {name: getattr(found, name) for name in expected} == expected


def test_the_help_names_each_of_them() -> None:
    hints = get_type_hints(TrainSettings, include_extras=True)
    fields = {field.name: field.default for field in dataclasses.fields(TrainSettings)}
    tables = (
        defaults.OWN_TOKENS,
        defaults.NEW_DECODER,
        defaults.ADAPTERS,
        defaults.NEW_BRIDGE,
        defaults.PRETRAINED_BRIDGE,
    )
    for name, value in [pair for table in tables for pair in table.items()]:
        option = next(part for part in get_args(hints[name]) if isinstance(part, Option))
        assert option.default is not None, name
        words = option.default.replace(";", "").replace(",", "").split()
        assert str(value) in words, (name, option.default)
        if name != "cross_every":  # no student of another condition has it
            assert str(fields[name]) == words[0], option.default
