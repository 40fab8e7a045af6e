"""A resumed run ends as an uninterrupted one; it resumes only with its own settings and cache."""

from __future__ import annotations

import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cache import CacheError
from pipeline.errors import InputError
from pipeline.evaluation.run import evaluate
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.runs.folder import RunFolder
from pipeline.training.callbacks import Stopwatch
from pipeline.training.run import train
from tests.cache.examples import rewrite_manifest
from tests.cli_process import CliProcess, run_process
from tests.pipeline.short_runs import require_equal_weights, short_run, weights_of


@pytest.mark.parametrize("killed_after", [4, 7])
def test_a_killed_run_resumes_to_the_same_weights(
    killed_after: int, small_cache: Path, tmp_path: Path
) -> None:
    train(short_run(small_cache, tmp_path / "whole", eval_every=2, log_every=1))
    command: list[object] = [
        *("train", "--cache", small_cache, "--run", tmp_path / "cut", "--device", "cpu"),
        *("--epochs", 3, "--batch-size", 8, "--bridge-lr", 2e-3, "--student-lr", 2e-3),
        *("--eval-every", 2, "--log-every", 1),
    ]
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    process = CliProcess(*command)
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        if len(cut.read_metrics()) >= killed_after:
            break
        time.sleep(0.002)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert cut.last_checkpoint() is not None
    resumed = run_process(*command, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    require_equal_weights(whole.root, cut.root)
    curves = [
        [(line["step"], line["loss"], line.get("val_loss")) for line in run.read_metrics()]
        for run in (whole, cut)
    ]
    assert curves[0] == curves[1]


@pytest.mark.parametrize(
    "ending",
    [{"max_steps": 3}, {"patience": 1, "min_delta": 100.0, "epochs": 9}],
    ids=["steps", "early"],
)
def test_a_run_killed_after_its_last_checkpoint_trains_no_further(
    ending: dict[str, Any], small_cache: Path, tmp_path: Path
) -> None:
    settings = short_run(small_cache, tmp_path / "run", eval_every=1, **ending)
    whole = train(settings)
    weights, folder = weights_of(tmp_path / "run"), RunFolder(tmp_path / "run")
    shutil.rmtree(folder.model)
    folder.write_record(replace(whole, outcome=None))
    resumed = train(settings, resume=True)
    for name in ("steps", "epochs", "tokens", "best_step", "best_val_loss", "parameters"):
        assert getattr(resumed.result, name) == getattr(whole.result, name), name
    for name, values in weights_of(tmp_path / "run").items():
        assert torch.equal(values, weights[name]), name


def test_a_run_is_neither_overwritten_nor_resumed_with_other_settings(
    trained_run: Path, small_cache: Path
) -> None:
    with pytest.raises(InputError, match="--resume"):
        train(short_run(small_cache, trained_run))
    with pytest.raises(InputError, match=r"--bridge-lr was 0\.002, now it is 0\.1"):
        train(short_run(small_cache, trained_run, bridge_lr=0.1), resume=True)
    before = (trained_run / "run.json").read_text()
    train(short_run(small_cache, trained_run), resume=True)  # is finished
    assert (trained_run / "run.json").read_text() == before


@pytest.mark.parametrize(
    "field",
    [
        *("teacher_weights", "teacher_config", "tokenizer", "dataset", "tokens", "template"),
        *("loss_on", "limit", "max_tokens", "condition", "compute_dtype", "sharing"),
    ],
)
def test_a_cache_of_another_identity_is_refused_before_a_model_is_built(
    field: str,
    trained_run: Path,
    small_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = shutil.copytree(small_cache, tmp_path / "cache")
    rewrite_manifest(other, lambda content: content["identity"].update({field: "other"}))
    monkeypatch.setattr("pipeline.training.new_student.build_student", None)
    difference = f"{field} was .*, now it is 'other'"
    with pytest.raises(InputError, match=f"cannot be resumed: {difference}"):
        train(short_run(other, trained_run), resume=True)
    with pytest.raises(
        InputError, match=f"not the cache that the run was trained from: {difference}"
    ):
        evaluate(EvaluateSettings(run=trained_run, cache=other, samples=0, device="cpu"))


@pytest.mark.parametrize("codec", ["other", {"-1": "klt", "0": "bf16"}])
def test_a_cache_whose_codecs_contradict_its_identity_is_refused(
    codec: object, small_cache: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(small_cache, tmp_path / "cache")
    rewrite_manifest(other, lambda content: content["identity"].update(codec=codec))
    with pytest.raises(CacheError, match="layer -1 has another codec than in the cache's identity"):
        train(short_run(other, tmp_path / "run"))


def test_a_stopwatch_continues_from_its_checkpoint() -> None:
    first: Any = Stopwatch()
    assert first.seconds == 0
    first.on_train_begin(None, None, None)
    first.on_train_end(None, None, None)
    seconds = first.seconds
    assert seconds > 0 and first.seconds == seconds
    second: Any = Stopwatch(**first.state()["args"])
    second.on_train_begin(None, None, None)
    assert second.seconds > seconds
