"""Settings of small files of answers by the embedded teacher, in fp32 on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.answering.run import answer
from pipeline.answering.settings import AnswerSettings

MakeSettings = Callable[..., AnswerSettings]


@pytest.fixture
def settings_of(tmp_path: Path) -> MakeSettings:
    """Return a factory of settings: six embedded problems in batches of two, sampled."""

    def make(**changes: object) -> AnswerSettings:
        options: dict[str, object] = {
            "out": tmp_path / "answers.jsonl",
            "limit": 6,
            "temperature": 0.8,
            "max_new_tokens": 120,
            "batch_size": 2,
            "device": "cpu",
            "precision": "fp32",
        }
        return AnswerSettings(**(options | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def sampled_rows(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the file of two uninterrupted samples per prompt."""
    out = tmp_path_factory.mktemp("answers") / "answers.jsonl"
    answer(
        AnswerSettings(
            out=out,
            limit=6,
            temperature=0.8,
            samples=2,
            max_new_tokens=120,
            batch_size=2,
            device="cpu",
            precision="fp32",
        )
    )
    return out.read_bytes()
