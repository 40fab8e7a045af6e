"""Several processes train the same student as one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import InputError
from pipeline.processes import Share
from pipeline.runs.folder import RunFolder, step_of
from pipeline.runs.settings import TrainSettings
from pipeline.training.run import train
from tests.cli_process import run_process
from tests.conftest import ROOT


def trained(
    cache: Path, run: Path, processes: int, *options: object
) -> subprocess.CompletedProcess[str]:
    command = [
        *("train", "--cache", cache, "--run", run, "--device", "cpu"),
        *("--batch-tokens", 700, "--accumulate", 2, "--epochs", 2),
        *("--bridge-lr", 2e-3, "--student-lr", 2e-3, "--log-every", 1, "--eval-every", 3),
        *options,
    ]
    if processes == 1:
        return run_process(*command)
    start = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        processes,
        "--",
        ROOT / "cli.py",
    ]
    return subprocess.run(
        list(map(str, [*start, *command])), capture_output=True, text=True, check=False
    )


def test_two_processes_train_as_one_and_each_resumes_the_other(
    small_cache: Path, tmp_path: Path
) -> None:
    done = {
        processes: trained(small_cache, tmp_path / f"run-{processes}", processes)
        for processes in (1, 2)
    }
    for process in done.values():
        assert process.returncode == 0, process.stderr
        assert process.stdout.count("best validation loss") == 1
    one, two = (RunFolder(tmp_path / f"run-{processes}") for processes in (1, 2))
    assert [line["step"] for line in one.read_metrics()] == [
        line["step"] for line in two.read_metrics()
    ]
    for alone, together in zip(one.read_metrics(), two.read_metrics(), strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], rel=1e-3)
        assert together.get("val_loss", 0.0) == pytest.approx(alone.get("val_loss", 0.0), rel=1e-3)
    assert one.read_record().result.tokens == two.read_record().result.tokens
    weights = [load_file(run.model / "model.safetensors") for run in (one, two)]
    for name, values in weights[0].items():
        assert float((values - weights[1][name]).norm()) <= 0.02 * float(values.norm()) + 1e-3, name

    # Each is interrupted in the middle of an epoch, and resumed by the other number of processes.
    for run, processes in ((one, 2), (two, 1)):
        whole, curve = load_file(run.model / "model.safetensors"), run.read_metrics()
        shutil.rmtree(max(run.checkpoints.iterdir(), key=step_of))
        shutil.rmtree(run.model)
        run.write_record(replace(run.read_record(), outcome=None))
        last = run.last_checkpoint()
        assert last is not None
        assert step_of(last) < curve[-1]["step"]
        resumed = trained(small_cache, run.root, processes, "--resume")
        assert resumed.returncode == 0, resumed.stderr
        assert [line["step"] for line in run.read_metrics()] == [line["step"] for line in curve]
        for line, before in zip(run.read_metrics(), curve, strict=True):
            assert line["loss"] == pytest.approx(before["loss"], rel=1e-3)
        for name, values in load_file(run.model / "model.safetensors").items():
            assert float((values - whole[name]).norm()) <= 0.02 * float(values.norm()) + 1e-3, name


@pytest.mark.slow
def test_two_processes_train_a_joined_student_as_one(prompt_cache: Path, tmp_path: Path) -> None:
    options = ("--condition", "prompt", "--prompt-text", "--join", "add", "--vocab", "dataset")
    for processes in (1, 2):
        done = trained(
            *(prompt_cache, tmp_path / str(processes), processes, *options),
            *("--layers", "-1,0", "--mix-layers", "--max-steps", 6),
        )
        assert done.returncode == 0, done.stderr
    one, two = (RunFolder(tmp_path / str(processes)).read_record().result for processes in (1, 2))
    checkpoint = RunFolder(tmp_path / "2").last_checkpoint()
    assert checkpoint is not None
    drawn = [load_file(file)["torch"] for file in checkpoint.glob("random_state-*.safetensors")]
    assert len(drawn) == 2
    assert not torch.equal(*drawn)
    assert one.tokens == two.tokens
    assert two.best_val_loss == pytest.approx(one.best_val_loss, rel=1e-3)
    assert two.layer_weights == pytest.approx(one.layer_weights, rel=1e-3)


def test_batches_that_cannot_be_divided_among_processes_are_refused(
    small_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.training.one_run.process_share", lambda: Share(0, 2))
    with pytest.raises(InputError, match="--accumulate 3: cannot be divided among 2 processes"):
        train(TrainSettings(cache=small_cache, run=tmp_path / "run", accumulate=3, device="cpu"))
    assert not (tmp_path / "run").exists()
