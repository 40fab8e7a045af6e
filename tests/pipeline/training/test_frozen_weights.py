"""Frozen weights are rounded once in bfloat16 training, which changes no result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from pipeline.model import LLMModulesForCausalLM
from pipeline.runs.folder import RunFolder
from pipeline.training import one_run
from pipeline.training.frozen_weights import rounded_while_training
from pipeline.training.run import train
from tests.pipeline.model.decoders import save_with_tokenizer
from tests.pipeline.short_runs import short_prompt_run, weights_of


@pytest.fixture(scope="module")
def gpt2(byte_gpt_neo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=2, n_positions=1024)
    return save_with_tokenizer(
        GPT2LMHeadModel(config), byte_gpt_neo, tmp_path_factory.mktemp("gpt2")
    )


@pytest.mark.parametrize("frozen", [{"lora": 4}, {"freeze": ("student",)}])
def test_the_student_is_the_same_bit_for_bit(
    frozen: dict[str, Any],
    gpt2: Path,
    prompt_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"student": str(gpt2), "prompt_text": True, "max_steps": 3, "precision": "bf16"}
    rounded: list[str] = []

    @contextmanager
    def watched(model: LLMModulesForCausalLM) -> Iterator[None]:
        with rounded_while_training(model):
            weights = dict(model.named_parameters())
            rounded.extend(name for name, value in weights.items() if value.dtype == torch.bfloat16)
            yield

    monkeypatch.setattr(one_run, "rounded_while_training", watched)
    train(short_prompt_run(prompt_cache, tmp_path / "rounded", **options, **frozen))
    assert len(rounded) == 8  # four matrices in each of two blocks
    assert all(name.startswith("body.") for name in rounded)

    @contextmanager
    def exact(_: LLMModulesForCausalLM) -> Iterator[None]:
        yield

    monkeypatch.setattr(one_run, "rounded_while_training", exact)
    train(short_prompt_run(prompt_cache, tmp_path / "exact", **options, **frozen))
    one, other = (weights_of(tmp_path / name) for name in ("rounded", "exact"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    losses = [RunFolder(tmp_path / name).read_metrics() for name in ("rounded", "exact")]
    assert [step.get("val_loss") for step in losses[0]] == [
        step.get("val_loss") for step in losses[1]
    ]


def test_trained_tied_and_narrow_weights_are_left_alone() -> None:
    model = nn.ModuleDict(
        {
            "embedding": nn.Embedding(4, 3),
            "head": nn.Linear(3, 4, bias=False),
            "frozen": nn.Linear(3, 3),
            "trained": nn.Linear(3, 3),
            "norm": nn.LayerNorm(3),
        }
    )
    model["head"].weight = model["embedding"].weight
    for name in ("embedding", "frozen", "norm"):
        model[name].requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="stopped"), rounded_while_training(model):
        dtypes = {name: value.dtype for name, value in model.named_parameters()}
        raise RuntimeError("stopped")
    assert {name for name, dtype in dtypes.items() if dtype == torch.bfloat16} == {"frozen.weight"}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
