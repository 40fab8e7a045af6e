"""Comparison runs that a student or its cache does not allow, with the reasons."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.runs.comparisons import BASELINES
from pipeline.training.requirements import unfit_comparisons
from pipeline.training.run import train
from tests.conftest import write_rows
from tests.pipeline.short_runs import short_run


def test_baselines_of_a_new_student_without_a_kept_head(small_cache: Path, tmp_path: Path) -> None:
    reasons = unfit_comparisons(short_run(small_cache, tmp_path / "run"), BASELINES)
    assert reasons.keys() == {"fine-tuned", "distilled"}
    assert "lacks the LM head" in reasons["distilled"]
    assert reasons["fine-tuned"] == "student tiny had new weights, so this would be scratch"


def test_a_leaking_student_has_no_leaking_baseline(small_cache: Path, tmp_path: Path) -> None:
    leaking = short_run(small_cache, tmp_path / "run", cross_attention="bidirectional")
    assert unfit_comparisons(leaking, ["bidirectional"]).keys() == {"bidirectional"}


def test_a_frozen_gpt_neo_does_not_forbid_baselines(small_cache: Path, tmp_path: Path) -> None:
    frozen = short_run(small_cache, tmp_path / "run", freeze=("student",))
    assert unfit_comparisons(frozen, ["scratch", "untouched"]) == {}


def test_the_cache_of_the_random_teacher_is_verified(small_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="its teacher is not random; extract with --teacher random:SEED:T"
    ):
        train(
            short_run(small_cache, tmp_path / "run"),
            comparisons=("random-teacher",),
            random_teacher=shutil.copytree(small_cache, tmp_path / "copy"),
        )


def test_plain_text_has_no_answers_for_baselines_in_own_tokens(
    small_cache: Path, embedded_settings: Callable[..., ExtractSettings], tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": "Snow falls."}] * 3)
    plain = embedded_settings(dataset=str(rows), limit=None)
    extract(prepare(plain))
    student = replace(short_run(small_cache, tmp_path / "run"), cache=plain.cache)
    reasons = unfit_comparisons(student, BASELINES)
    for name in ("untouched", "scratch"):
        assert "holds plain text" in reasons[name]
