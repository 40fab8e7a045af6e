"""Weights of a checkpoint fit the student that they are loaded into."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.errors import RunError
from pipeline.training.checkpoint_state import load_weights, save_weights


def test_weights_are_restored(tmp_path: Path) -> None:
    saved, loaded = nn.Linear(3, 2), nn.Linear(3, 2)
    save_weights(tmp_path, saved)
    load_weights(tmp_path, loaded)
    assert torch.equal(loaded.weight, saved.weight)


@pytest.mark.parametrize(
    ("saved", "name"),
    [
        (nn.Linear(3, 2), "bias"),
        (nn.Linear(4, 2, bias=False), "weight"),
        (nn.Sequential(nn.Linear(3, 2, bias=False)), "0.weight"),
    ],
)
def test_weights_of_another_student_are_refused(
    saved: nn.Module, name: str, tmp_path: Path
) -> None:
    save_weights(tmp_path, saved)
    with pytest.raises(RunError, match=f"built in another way \\({name} differs\\)"):
        load_weights(tmp_path, nn.Linear(3, 2, bias=False))
