"""Arguments of `Trainer`."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import PropertyMock, patch

import pytest
from transformers import TrainingArguments

from pipeline.runs.folder import RunFolder
from pipeline.runs.settings import TrainSettings
from pipeline.training.arguments import training_arguments


@pytest.mark.parametrize(("visible", "used"), [(0, 0), (1, 1), (4, 1)])
def test_a_process_trains_on_one_device_at_most(tmp_path: Path, visible: int, used: int) -> None:
    settings = TrainSettings(cache=tmp_path, run=tmp_path / "run", device="cpu")
    arguments = training_arguments(settings, RunFolder(settings.run), processes=1)
    with patch.object(TrainingArguments, "n_gpu", new_callable=PropertyMock, return_value=visible):
        assert arguments.n_gpu == used
