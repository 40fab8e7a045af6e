"""A full disk during a checkpoint; memory that does not grow with the cache."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import TrainerState

from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.runs.folder import RunFolder
from tests.conftest import ROOT, RunCli

OPTIONS = [
    *("--device", "cpu", "--batch-size", "8"),
    *("--max-steps", "6", "--eval-every", "2", "--log-every", "1"),
]


@pytest.mark.parametrize(
    "file",
    [
        "model.safetensors",
        "optimizer.safetensors",
        "random_state-0.safetensors",
        "trainer_state.json",
    ],
)
def test_a_full_disk_leaves_the_previous_checkpoint(
    file: str, run_cli: RunCli, small_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The libraries raise what they raise on a full disk, with half of the file written."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_cli("train", "--cache", small_cache, "--run", whole, *OPTIONS).returncode == 0
    blocked = cut / "checkpoints" / "checkpoint-4" / file
    save_json = TrainerState.save_to_json

    def fail_at(path: Any, error: Exception) -> None:
        if Path(path) == blocked:
            blocked.write_bytes(b"half")
            raise error

    def save_tensors(tensors: Any, path: Any, metadata: Any = None) -> None:
        fail_at(
            path,
            SafetensorError(
                "Error while serializing: I/O error: No space left on device (os error 28)"
            ),
        )
        save_file(tensors, path, metadata)

    def save_state(self: TrainerState, path: str) -> None:
        fail_at(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path))
        save_json(self, path)

    with monkeypatch.context() as patch:
        patch.setattr("transformers.modeling_utils.safe_save_file", save_tensors)
        patch.setattr("pipeline.training.checkpoint_state.save_file", save_tensors)
        patch.setattr(TrainerState, "save_to_json", save_state)
        done = run_cli("train", "--cache", small_cache, "--run", cut, *OPTIONS)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the disk is full"), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert RunFolder(cut).last_checkpoint() == cut / "checkpoints" / "checkpoint-2"
    resumed = run_cli("train", "--cache", small_cache, "--run", cut, *OPTIONS, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    weights = [load_file(run / "model" / "model.safetensors") for run in (whole, cut)]
    assert all(torch.equal(values, weights[1][name]) for name, values in weights[0].items())


PEAK = """
import sys
from pathlib import Path
from pipeline.runs.settings import TrainSettings
from pipeline.training.run import train

cache, run = map(Path, sys.argv[1:])
steps = {"batch_tokens": 1000, "max_steps": 20, "eval_every": 100}
train(TrainSettings(cache=cache, run=run, device="cpu", **steps))
status = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
"""


@pytest.mark.parametrize("codec", ["bf16", "int8"])
@pytest.mark.slow
def test_memory_does_not_grow_with_the_cache(
    codec: str, embedded_settings: Callable[..., ExtractSettings], tmp_path: Path
) -> None:
    """A cache of ten times the size (30 MB in bfloat16) and the same number of steps."""
    peaks = []
    for rows in (80, 800):
        extract(prepare(embedded_settings(cache=tmp_path / str(rows), limit=rows, codec=(codec,))))
        command = [
            sys.executable,
            "-c",
            PEAK,
            str(tmp_path / str(rows)),
            str(tmp_path / f"run-{rows}"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] + 15, f"{peaks} MB"
