"""Which weights keep a run from starting, and which of its own a run records."""

from __future__ import annotations

import gc
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
from pipeline.runs.settings import TrainSettings
from pipeline.teacher.load import load_base_model, load_teacher
from pipeline.teacher.source import find_teacher
from pipeline.training.absence import require_no_teacher
from pipeline.training.run import train

CPU = torch.device("cpu")


def test_models_of_the_user_are_left_alone() -> None:
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
    weights = {}
    for name, changes in {"plain": {}, "distilled": {"distill": 0.5}}.items():
        run = TrainSettings(
            cache=settings.cache,
            run=tmp_path / name,
            max_steps=1,
            device="cpu",
            **changes,  # type: ignore[arg-type]
        )
        weights[name] = train(run).result.weights_in_memory
    assert set(weights["plain"]) == {"student"}
    assert set(weights["distilled"]) == {"student", "kept_lm_head"}
    assert weights["distilled"]["student"] == weights["plain"]["student"] > 0
    assert weights["distilled"]["kept_lm_head"] > 0
