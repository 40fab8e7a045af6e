"""Runs whose students join the prompt's own tokens with its states: trained, evaluated, written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from cache import open_cache
from pipeline.batches.answers import CachedAnswers
from pipeline.batches.collate import collate
from pipeline.data.alignment import TeacherReading, align_prompt
from pipeline.data.transcript import transcript_of
from pipeline.errors import InputError
from pipeline.evaluation.run import evaluate
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.model import LLMModulesForCausalLM
from pipeline.runs.examples import teachers_tokenizer
from pipeline.runs.folder import RunFolder
from pipeline.training.run import train
from pipeline.training.trainer import StudentTrainer
from tests.conftest import RunCli
from tests.pipeline.short_runs import require_equal_weights, short_prompt_run, weights_of

JOINS: list[tuple[str, ...]] = [("add",), ("cross", "add")]


class Killed(Exception):
    """Stands for the death of a process."""


def test_answers_have_a_place_per_token_of_the_prompt(prompt_cache: Path) -> None:
    with open_cache(prompt_cache) as cache:
        tokenizer = teachers_tokenizer(cache)
        teacher = TeacherReading(cache.identity["template"], tokenizer)
        answers = CachedAnswers(
            cache, range(6), [-1], tokenizer, with_prompts=True, aligned_with=teacher
        )
        batch = collate([answers[place] for place in range(6)])
        assert batch["state_places"].shape == batch["input_ids"].shape
        for place in range(6):
            transcript = transcript_of(cache, place)
            turns = transcript.prompt_of(transcript.answers[0])
            aligned = align_prompt(turns, teacher, teacher.locate(turns), tokenizer)
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
    results = json.loads((run / "evaluation" / "results.json").read_text())
    student, _, text = results["students"]
    shown = ["matched", "mismatched", "shuffled", "zeroed"]
    assert [*student["features"]] == shown + ["gates shut"] * ("cross" in join)
    assert student["reads"] == (
        f"teacher layer -1, of the prompt, joined by {' and '.join(join)}, and the prompt in its"
        " own tokens"
    )
    assert text["about"] == "the same decoder on prompt and answer as text"
    assert not results["trivial"]
    assert student["flops_a_token"] > 0
    written = run_cli(
        "generate", "--run", str(run), "--prompt", "How many?", "--max-new-tokens", "3"
    )
    assert written.returncode == 0, written.stderr


def test_a_killed_joined_run_resumes_to_the_same_weights(
    prompt_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = short_prompt_run(
        prompt_cache, tmp_path / "whole", join=("cross", "add"), prompt_text=True, layers=(0, -1),
        mix_layers=True, vocab="dataset", eval_every=2, max_steps=4,
    )  # fmt: skip
    train(whole)
    cut, step, taken = replace(whole, run=tmp_path / "cut"), StudentTrainer.training_step, count()

    def killed(*arguments: Any, **named: Any) -> Any:
        if next(taken) == 3:
            raise Killed
        return step(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(StudentTrainer, "training_step", killed)
        with pytest.raises(Killed):
            train(cut)
    assert RunFolder(cut.run).last_checkpoint() is not None
    train(cut, resume=True)
    require_equal_weights(whole.run, cut.run)


@pytest.mark.parametrize(
    "changes", [{"prompt_text": True}, {"join": ("add",)}, {"mix_layers": True}]
)
def test_students_of_other_conditions_have_no_joins(
    changes: dict[str, Any], small_cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="only for --condition prompt, not sequence"):
        train(short_prompt_run(small_cache, tmp_path / "run", condition="sequence", **changes))


def test_weights_of_mixed_layers_are_recorded_and_shown(
    prompt_cache: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    run = tmp_path / "run"
    trained = run_cli(
        "train", "--cache", prompt_cache, "--run", run, "--condition", "prompt", "--layers", "-1,0",
        "--mix-layers", "--batch-size", 8, "--max-steps", 8,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    weights = RunFolder(run).read_record().result.layer_weights
    assert [*weights] == ["-1", "0"]
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["-1"] != pytest.approx(0.5, abs=1e-3)
    shown = f"-1: {weights['-1']:.2f}, 0: {weights['0']:.2f}"
    assert f"weights of the mixed layers: {shown}" in trained.stdout
    evaluated = run_cli("evaluate", "--run", run, "--samples", 0)
    assert f"student, weights of its layers: {shown}" in evaluated.stdout
    (student,) = json.loads((run / "evaluation/results.json").read_text())["students"]
    assert student["layer_weights"] == weights
    assert student["reads"] == "mean of teacher layer -1, 0, of the prompt"
    assert {"matched", "without layer 0"} <= {*student["features"]}
    assert "Mixed layers" in (run / "evaluation/report.html").read_text()
    assert (run / "evaluation/layers.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("join", [("cross",), ("add",), ("cross", "add")])
def test_recomputed_activations_give_the_same_joined_student(
    join: tuple[str, ...], prompt_cache: Path, tmp_path: Path
) -> None:
    stored = short_prompt_run(
        prompt_cache, tmp_path / "stored", join=join, prompt_text=True, vocab="dataset", max_steps=3
    )
    recomputed = replace(stored, run=tmp_path / "recomputed", gradient_checkpointing=True)
    losses = [train(settings).result.best_val_loss for settings in (stored, recomputed)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_coded_states_are_added(
    embedded_settings: Callable[..., ExtractSettings], prompt_cache: Path, tmp_path: Path
) -> None:
    coded = embedded_settings(condition="prompt", codec=("klt",), fidelity=("rel=0.05",))
    extract(prepare(coded))
    losses = [
        train(
            short_prompt_run(
                cache, tmp_path / name, join=("add",), prompt_text=True, layers=(-1,),
                vocab="dataset", max_steps=3,
            )
        ).result.best_val_loss
        for name, cache in (("exact", prompt_cache), ("coded", Path(str(coded.cache))))
    ]  # fmt: skip
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.02)


def test_an_option_that_may_be_repeated_is_varied(
    run_cli: RunCli, prompt_cache: Path, tmp_path: Path
) -> None:
    done = run_cli(
        *(
            "sweep",
            "--cache",
            prompt_cache,
            "--runs",
            tmp_path / "runs",
            "--max-steps",
            2,
            "--device",
            "cpu",
        ),
        *("--condition", "prompt", "--prompt-text", "--cross-every", 1, "--vocab", "dataset"),
        *("--vary", "join=add cross,add", "--json"),
    )
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)["runs"]
    assert [run["varied"] for run in runs] == [{"join": "add"}, {"join": "cross,add"}]
    assert runs[1]["parameters"] > runs[0]["parameters"]
    refused = run_cli(
        *(
            "sweep",
            "--cache",
            prompt_cache,
            "--runs",
            tmp_path / "other",
            "--max-steps",
            2,
            "--device",
            "cpu",
        ),
        *("--condition", "prompt", "--vary", "join=cross nowhere"),
    )
    assert (refused.returncode, "'nowhere' is not one of" in refused.stderr) == (2, True)


def test_new_embeddings_of_vocab_dataset_span_the_tokens_that_are_read(
    prompt_cache: Path, tmp_path: Path
) -> None:
    sizes = {}
    for name, changes in {"answers": {}, "prompts": {"prompt_text": True}}.items():
        run = short_prompt_run(
            prompt_cache, tmp_path / name, vocab="dataset", max_steps=1, **changes
        )
        train(run)
        weights = weights_of(run.run)
        sizes[name] = len(weights["body.wte.weight"])
        assert len(weights["embedded_tokens"]) == sizes[name] - 1
        assert set(weights["head_tokens"].tolist()) <= set(weights["embedded_tokens"].tolist())
    assert sizes["answers"] < sizes["prompts"] < 2000


def test_a_frozen_student_costs_less_training(prompt_cache: Path, tmp_path: Path) -> None:
    costs = []
    for name, freeze in (("all", ()), ("bridge", ("student",))):
        run = short_prompt_run(prompt_cache, tmp_path / name, freeze=freeze, max_steps=1)
        train(run)
        results = evaluate(EvaluateSettings(run=run.run, samples=0, device="cpu"))
        costs.append(results.student.flops_per_token)
    assert 0 < costs[1] < costs[0]


def test_states_of_zeros_stand_for_none(prompt_cache: Path, tmp_path: Path) -> None:
    run = short_prompt_run(prompt_cache, tmp_path / "run", max_steps=1)
    train(run)
    norm = LLMModulesForCausalLM.from_pretrained(tmp_path / "run" / "model").bridge.norm[0]
    assert norm.mean.abs().max() > 0.1
    assert not norm(torch.zeros(1, 3, norm.size)).any()
