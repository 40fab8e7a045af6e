"""Runs whose students join the prompt's own tokens with its states: trained, evaluated, written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cache import open_cache
from pipeline.batches.answers import CachedAnswers
from pipeline.batches.collate import collate
from pipeline.data.alignment import PromptReader, align_prompt
from pipeline.data.transcript import transcript_of
from pipeline.errors import InputError
from pipeline.runs.examples import teachers_tokenizer
from pipeline.training.run import train
from tests.conftest import RunCli
from tests.pipeline.short_runs import require_equal_weights, short_prompt_run

JOINS: list[tuple[str, ...]] = [("add",), ("prefix",), ("cross", "add")]


def test_answers_have_a_place_per_token_of_the_prompt(prompt_cache: Path) -> None:
    with open_cache(prompt_cache) as cache:
        tokenizer = teachers_tokenizer(cache)
        teacher = PromptReader(cache.identity["template"], tokenizer)
        answers = CachedAnswers(
            cache, range(6), [-1], tokenizer, with_prompts=True, aligned_with=teacher
        )
        batch = collate([answers[place] for place in range(6)])
        assert batch["state_places"].shape == batch["input_ids"].shape
        for place in range(6):
            transcript = transcript_of(cache, place)
            turns = transcript.prompt_of(transcript.answers[0])
            aligned = align_prompt(turns, teacher, tokenizer)
            row = batch["state_places"][place]
            assert row[: len(aligned.places)].tolist() == aligned.places
            assert (row[len(aligned.places) :] == -1).all()
            assert int(row.max()) == int(batch["states_mask"][place].sum()) - 1


@pytest.mark.parametrize("join", JOINS)
def test_a_joined_student_is_trained_evaluated_and_answers(
    join: tuple[str, ...], prompt_cache: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    run = tmp_path / "run"
    joins = [option for name in join for option in ("--join", name)]
    options = ["--prompt-text", *joins, "--vocab", "dataset", "--epochs", "1", "--max-steps", "4"]
    trained = run_cli(
        "train", "--cache", str(prompt_cache), "--run", str(run), "--condition", "prompt",
        "--cross-every", "1", "--controls", "--batch-size", "8", *options,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    evaluated = run_cli("evaluate", "--run", str(run), "--samples", "4", "--max-new-tokens", "4")
    assert evaluated.returncode == 0, evaluated.stderr
    result = json.loads((run / "evaluation" / "results.json").read_text())
    assert {"matched", "mismatched", "zeroed"} <= {*result["students"][0]["features"]}
    written = run_cli(
        "generate", "--run", str(run), "--prompt", "How many?", "--max-new-tokens", "3"
    )
    assert written.returncode == 0, written.stderr


def test_a_resumed_joined_run_has_the_same_weights(prompt_cache: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "join": ("cross", "add"), "prompt_text": True, "layers": (0, -1), "mix_layers": True,
        "eval_every": 2, "vocab": "dataset",
    }  # fmt: skip
    whole = short_prompt_run(prompt_cache, tmp_path / "whole", max_steps=4, **options)
    train(whole)
    half = short_prompt_run(prompt_cache, tmp_path / "half", max_steps=2, **options)
    train(half)
    train(short_prompt_run(prompt_cache, tmp_path / "half", max_steps=4, **options), resume=True)
    require_equal_weights(tmp_path / "whole", tmp_path / "half")


@pytest.mark.parametrize(
    "changes", [{"prompt_text": True}, {"join": ("prefix",)}, {"mix_layers": True}]
)
def test_students_of_other_conditions_have_no_joins(
    changes: dict[str, Any], small_cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="only for --condition prompt, not sequence"):
        train(short_prompt_run(small_cache, tmp_path / "run", condition="sequence", **changes))
