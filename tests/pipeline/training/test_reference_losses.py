"""Losses of short runs equal committed ones.

To change them on purpose: `python -m tests.pipeline.training.test_reference_losses`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.runs.folder import RunFolder
from pipeline.runs.settings import TrainSettings
from pipeline.training.run import train
from tests.conftest import ROOT

FILE = ROOT / "tests" / "fixtures" / "reference_losses.json"
STEPS = 8
TOLERANCE = 1e-3
"""Relative, in fp32 on a CPU: the last bits of a sum depend on the machine."""
CONDITIONS = ("sequence", "prompt")


def losses_of(condition: str, cache: Path, run: Path) -> dict[str, Any]:
    settings = TrainSettings(
        cache=cache,
        run=run,
        condition=condition,  # type: ignore[arg-type]
        batch_size=4,
        max_steps=STEPS,
        log_every=1,
        bridge_lr=1e-3,
        student_lr=1e-3,
        precision="fp32",
        device="cpu",
    )
    record = train(settings)
    lines = {line["step"]: line["loss"] for line in RunFolder(run).read_metrics() if "loss" in line}
    return {"training": list(lines.values()), "validation": record.result.best_val_loss}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_losses_equal_the_committed_ones(
    condition: str, embedded_settings: Callable[..., ExtractSettings], tmp_path: Path
) -> None:
    settings = embedded_settings(condition=condition, layers=(-1,))
    extract(prepare(settings))
    losses = losses_of(condition, settings.cache, tmp_path / "run")
    expected = json.loads(FILE.read_text())[condition]
    assert len(losses["training"]) == STEPS
    assert losses["training"] == pytest.approx(expected["training"], rel=TOLERANCE)
    assert losses["validation"] == pytest.approx(expected["validation"], rel=TOLERANCE)


def write_reference() -> None:
    reference = {}
    for condition in CONDITIONS:
        with tempfile.TemporaryDirectory() as folder:
            settings = ExtractSettings(
                teacher=EMBEDDED_TEACHER,
                dataset=EMBEDDED_DATASET,
                cache=Path(folder) / "cache",
                condition=condition,
                limit=40,
                shard_tokens=1500,
                dtype="fp32",
                device="cpu",
            )
            extract(prepare(settings))
            reference[condition] = losses_of(condition, Path(folder) / "cache", Path(folder) / "r")
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(reference, indent=1) + "\n")


if __name__ == "__main__":
    write_reference()
