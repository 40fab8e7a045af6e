"""Training runs without a teacher in memory, and records the weights that it needed."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import Qwen2Config, Qwen2Model

from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.errors import RunError
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.loaded_teachers import bytes_of, register_teacher, teachers_in_memory
from pipeline.runs.folder import RunFolder
from pipeline.teacher.load import load_base_model, load_teacher
from pipeline.teacher.source import find_teacher
from pipeline.training.absence import require_no_teacher
from pipeline.training.run import train
from tests.conftest import ROOT
from tests.pipeline.short_runs import short_run

CPU = torch.device("cpu")
PROGRAM = """
import sys, transformers
from pathlib import Path

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("pipeline.teacher"):
            raise AssertionError("the teacher was imported: " + name)

def wall(*_, **__):
    raise AssertionError("a model was loaded")

sys.meta_path.insert(0, Wall())
transformers.AutoModel.from_pretrained = transformers.AutoModelForCausalLM.from_pretrained = wall
transformers.Qwen2Model.__init__ = wall

from pipeline.runs.comparisons import CONTROLS
from pipeline.runs.settings import TrainSettings
from pipeline.training.run import train

cache, run = map(Path, sys.argv[1:])
train(TrainSettings(cache=cache, run=run, max_steps=2, batch_size=8), comparisons=CONTROLS)
"""


def test_models_that_are_no_teacher_do_not_count() -> None:
    gc.collect()
    unrelated = Qwen2Model(
        Qwen2Config(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    assert bytes_of(unrelated) > 0
    require_no_teacher()


@pytest.mark.parametrize("with_lm_head", [False, True])
def test_a_teacher_counts_until_it_is_freed(with_lm_head: bool) -> None:
    gc.collect()
    teacher = load_teacher(
        find_teacher(EMBEDDED_TEACHER), [-1], CPU, "fp32", with_lm_head=with_lm_head
    )
    with pytest.raises(RunError, match="teacher in memory: Qwen2"):
        require_no_teacher()
    del teacher
    require_no_teacher()


def test_a_part_of_a_teacher_counts_after_the_whole_is_gone() -> None:
    gc.collect()
    part = load_base_model(find_teacher(EMBEDDED_TEACHER), CPU, "fp32").get_input_embeddings()
    assert list(teachers_in_memory().values()) == [bytes_of(part)]
    del part
    assert teachers_in_memory() == {}


def test_buffers_count_and_weights_on_meta_do_not() -> None:
    gc.collect()
    model = nn.Linear(4, 3, bias=False)
    model.register_buffer("kept", torch.zeros(5))
    register_teacher(model)
    assert teachers_in_memory() == {"Linear": 4 * (12 + 5)}
    model.to("meta")
    assert teachers_in_memory() == {}


def test_distillation_records_the_kept_lm_head(
    embedded_settings: Callable[..., ExtractSettings], tmp_path: Path
) -> None:
    settings = embedded_settings(layers=(-1,), keep_head=True, limit=12)
    extract(prepare(settings))
    plain, distilled = (
        train(
            short_run(settings.cache, tmp_path / str(share), max_steps=1, distill=share)
        ).result.weights_in_memory
        for share in (0.0, 0.5)
    )
    assert set(plain) == {"student"}
    assert set(distilled) == {"student", "kept_lm_head"}
    assert distilled["student"] == plain["student"] > 0
    assert distilled["kept_lm_head"] > 0


def test_training_neither_imports_the_teacher_nor_loads_another_model(
    small_cache: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", PROGRAM, small_cache, tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_a_teacher_in_memory_fails_the_run(small_cache: Path, tmp_path: Path) -> None:
    settings = short_run(small_cache, tmp_path / "run", max_steps=2)
    teacher = load_teacher(find_teacher(EMBEDDED_TEACHER), [-1], CPU, "fp32")
    refusal = r"teacher in memory: Qwen2Model \([\d.]+ MB\); training needs none"
    with pytest.raises(RunError, match=refusal):
        train(settings)
    del teacher
    loaded = train(settings, resume=True).result.loaded
    assert "pipeline.training.run" in loaded["project"]
    assert "gpt_neo" in loaded["model_families"]


def test_the_record_of_a_separate_process_lists_no_module_of_the_teacher(
    small_cache: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = ["--cache", small_cache, "--run", run, "--max-steps", "1", "--device", "cpu"]
    command = [sys.executable, ROOT / "cli.py", "train", *options]
    subprocess.run(command, check=True, capture_output=True)
    result = RunFolder(run).read_record().result
    assert not [name for name in result.loaded["project"] if name.startswith("pipeline.teacher")]
    families = {*result.loaded["model_families"]} - {"bloom"}  # imported by peft, for Trainer
    assert families == {"gpt_neo"}
    assert result.peak_memory["host_bytes"] > 1e8
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
