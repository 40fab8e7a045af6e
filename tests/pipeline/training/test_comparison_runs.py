"""Training of comparison runs, and of students that start from another run's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, GPTNeoConfig, GPTNeoForCausalLM

from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.errors import InputError
from pipeline.model import LLMModulesForCausalLM
from pipeline.runs.folder import RunFolder
from pipeline.runs.settings import TrainSettings
from pipeline.training import run as run_module
from pipeline.training.run import train
from tests.pipeline.short_runs import short_run


@pytest.fixture
def gpt_neo(tmp_path: Path) -> Path:
    """Return a GPT-Neo with random weights and the teacher's tokenizer."""
    folder = tmp_path / "gpt-neo"
    torch.manual_seed(3)
    config = GPTNeoConfig(
        vocab_size=600,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=1024,
        bos_token_id=2,
        eos_token_id=2,
    )
    GPTNeoForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(EMBEDDED_TEACHER).save_pretrained(folder)
    return folder


def body_of(run: RunFolder) -> dict[str, torch.Tensor]:
    body: dict[str, torch.Tensor] = LLMModulesForCausalLM.from_pretrained(
        run.model
    ).body.state_dict()
    return body


def test_untouched_gpt_neo_is_measured_with_its_weights_and_scratch_has_new_ones(
    gpt_neo: Path, small_cache: Path, tmp_path: Path
) -> None:
    settings = short_run(small_cache, tmp_path / "run", student=str(gpt_neo), max_steps=3)
    train(settings, comparisons=("untouched", "scratch"))
    comparisons = RunFolder(tmp_path / "run").comparisons()
    result = comparisons["untouched"].read_record().result
    assert result.steps == result.tokens == 0
    assert result.best_val_loss > 1
    pretrained = GPTNeoForCausalLM.from_pretrained(gpt_neo).transformer.state_dict()
    untouched, scratch = (body_of(run) for run in comparisons.values())
    for name, values in pretrained.items():
        assert torch.equal(values, untouched[name]), name
        if values.ndim == 2:
            assert not torch.allclose(values, scratch[name], atol=1e-2), name


def test_a_student_starts_with_the_weights_of_a_text_run(small_cache: Path, tmp_path: Path) -> None:
    text = short_run(small_cache, tmp_path / "text", condition="text", epochs=1)
    train(text)
    model = str(RunFolder(text.run).model)
    unchanged = {"bridge_lr": 0.0, "student_lr": 0.0, "weight_decay": 0.0, "max_steps": 1}
    for condition in ("sequence", "text", "none"):
        run = tmp_path / f"from-text-{condition}"
        train(short_run(small_cache, run, student=model, condition=condition, **unchanged))
        weights, started = body_of(RunFolder(text.run)), body_of(RunFolder(run))
        shared = {
            name
            for name in weights.keys() & started.keys()
            if not name.startswith("wte.") or condition == "text"
        }
        assert len(shared) > 20
        assert all(torch.equal(weights[name], started[name]) for name in shared)
    sequence = str(tmp_path / "from-text-sequence/model")
    with pytest.raises(InputError, match="reads a teacher, or its LM head"):
        train(short_run(small_cache, tmp_path / "other", student=sequence))


def test_an_interrupted_control_is_required_and_an_interrupted_baseline_is_not(
    small_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = short_run(small_cache, tmp_path / "run", max_steps=1)
    train(settings)
    train_one = run_module.train_one

    def interrupted(one: TrainSettings, *arguments: Any, **options: Any) -> Any:
        if one.run != settings.run:
            raise KeyboardInterrupt
        return train_one(one, *arguments, **options)

    monkeypatch.setattr(run_module, "train_one", interrupted)
    for name in ("bidirectional", "layer-0"):
        with pytest.raises(KeyboardInterrupt):
            train(settings, comparisons=(name,), resume=True)
    folder = RunFolder(settings.run)
    assert folder.read_record().comparisons == ("layer-0",)
    with pytest.raises(InputError, match="layer-0 is not finished"):
        folder.comparisons()
    monkeypatch.setattr(run_module, "train_one", train_one)
    train(settings, comparisons=("layer-0", "bidirectional"), resume=True)
    assert list(folder.comparisons()) == ["layer-0", "bidirectional"]
