"""Where a run keeps what, and its record of itself."""

from __future__ import annotations

import json
import os
import platform
import resource
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from cache.files import write_atomically
from pipeline.errors import InputError

_RECORDED_VERSIONS = ("accelerate", "numpy", "torch", "transformers")


@dataclass(frozen=True)
class RunFolder:
    """A run's folder: `model/`, `checkpoints/`, `metrics.jsonl`, `run.json`, `tensorboard/`, `controls/`, `evaluation/`."""

    root: Path

    @property
    def model(self) -> Path:
        """The best student with its tokenizer, as `save_pretrained` writes it."""
        return self.root / "model"

    @property
    def checkpoints(self) -> Path:
        """Best and last checkpoint."""
        return self.root / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One JSON object a log step."""
        return self.root / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.root / "tensorboard"

    @property
    def evaluation(self) -> Path:
        """Results and report."""
        return self.root / "evaluation"

    def controls(self) -> dict[str, RunFolder]:
        """The finished control runs, by name."""
        found = sorted((self.root / "controls").glob("*/run.json"))
        runs = {path.parent.name: RunFolder(path.parent) for path in found}
        return {name: run for name, run in runs.items() if run.read_record().get("finished")}

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.root / "run.json").is_file()

    def read_record(self) -> dict[str, Any]:
        """What run.json holds.

        Raises:
            InputError: there is no run here, or its record cannot be read.
        """
        path = self.root / "run.json"
        if not path.is_file():
            raise InputError(f"{self.root}: not a run (it has no run.json); make one with `train --run {self.root}`")
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path}: damaged ({error})") from error
        if not isinstance(record, dict):
            raise InputError(f"{path}: damaged (not a JSON object)")
        return record

    def require_finished(self) -> dict[str, Any]:
        """The record of a run that has a model.

        Raises:
            InputError: there is no run here, or it is not finished.
        """
        record = self.read_record()
        if not record.get("finished"):
            raise InputError(
                f"{self.root}: not finished; go on with it: `train --run {self.root} --resume` and its other options"
            )
        return record

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace run.json, atomically."""
        write_atomically(self.root / "run.json", json.dumps(record, indent=1).encode() + b"\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The logged steps, without a last line that a killed run did not finish."""
        records = []
        for line in self.metrics.read_text().splitlines() if self.metrics.is_file() else []:
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def cut_metrics(self, step: int) -> None:
        """Forget what was logged after a step, before a resumed run logs it again."""
        kept = [json.dumps(record) for record in self.read_metrics() if record["step"] <= step]
        write_atomically(self.metrics, "".join(line + "\n" for line in kept).encode())

    def last_checkpoint(self) -> Path | None:
        """The newest whole checkpoint: its state file is written last, so where that cannot be read it was cut short."""
        found = sorted(self.checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
        return next((path for path in found if _is_whole(path)), None)


def environment() -> dict[str, Any]:
    """Versions and machine, recorded and never compared."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: version(name) for name in _RECORDED_VERSIONS},
    }


def peak_memory() -> dict[str, int]:
    """Most bytes of memory that this process has held so far, on the host and on the GPU."""
    peak = {"host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if torch.cuda.is_available():
        peak["gpu_bytes"] = torch.cuda.max_memory_allocated()
    return peak


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return True
