"""Frozen decoders and low-rank adapters: what is trained, saved, resumed and merged."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import GPTNeoForCausalLM

from cache import open_cache
from pipeline.errors import InputError, RunError
from pipeline.model import LLMModulesForCausalLM
from pipeline.processes import Share
from pipeline.runs.folder import RunFolder
from pipeline.training.adapters import add_adapters, merge_adapters
from pipeline.training.prepare import prepare_run
from pipeline.training.run import train
from pipeline.training.trainer import StudentTrainer
from tests.pipeline.model.decoders import DECODERS, save_decoder
from tests.pipeline.model.prompt_students import make_prompt_student, opened, random_inputs
from tests.pipeline.short_runs import require_equal_weights, short_prompt_run, weights_of


@pytest.mark.parametrize("family", DECODERS)
def test_adapters_train_nothing_else_and_are_merged(family: str, tmp_path: Path) -> None:
    student = opened(make_prompt_student(save_decoder(family, tmp_path / "decoder")))
    inputs = random_inputs(2, 8, 5, 0)
    with torch.no_grad():
        plain = student(**inputs).logits
    add_adapters(student, 2)
    with torch.no_grad():
        torch.testing.assert_close(student(**inputs).logits, plain)
    trained = {name for name, weights in student.named_parameters() if weights.requires_grad}
    adapters = {name for name in trained if name.startswith("body.")}
    assert trained - adapters == {
        name for name, _ in student.named_parameters() if name.startswith("bridge.")
    }
    assert all(".lora_" in name for name in adapters)
    blocks = {name.split(".lora_")[0] for name in adapters}
    assert len(blocks) >= 4 * 4  # attention and MLP of each block
    for name, weights in student.named_parameters():
        if name in adapters:
            nn.init.normal_(weights, std=0.3)
    with torch.no_grad():
        adapted = student(**inputs).logits
    assert not torch.allclose(adapted, plain)
    merge_adapters(student)
    with torch.no_grad():
        torch.testing.assert_close(student(**inputs).logits, adapted, atol=1e-4, rtol=1e-4)
    student.save_pretrained(tmp_path / "saved")
    loaded = LLMModulesForCausalLM.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, student(**inputs).logits)


KINDS: dict[str, dict[str, Any]] = {"frozen": {"freeze": ("student",)}, "lora": {"lora": 2}}


@pytest.fixture(scope="module", params=KINDS)
def finished(
    request: pytest.FixtureRequest,
    prompt_cache: Path,
    byte_gpt_neo: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """Return the settings of a run that trains the bridge, with or without adapters."""
    settings = short_prompt_run(
        prompt_cache,
        tmp_path_factory.mktemp(request.param) / "run",
        student=str(byte_gpt_neo),
        max_steps=6,
        eval_every=2,
        log_every=1,
        **KINDS[request.param],
    )
    train(settings)
    return settings


def test_checkpoints_hold_trained_weights_and_the_model_all(finished: Any) -> None:
    with open_cache(finished.cache) as cache:
        model = prepare_run(cache, finished, Share()).model
    trained = {name for name, weights in model.named_parameters() if weights.requires_grad}
    checkpoint = RunFolder(finished.run).last_checkpoint()
    assert checkpoint is not None
    assert load_file(checkpoint / "model.safetensors").keys() == trained
    merge_adapters(model)
    weights = weights_of(finished.run)
    assert weights.keys() | {"lm_head.weight"} == model.state_dict().keys()
    for name, before in model.state_dict().items():
        if name.startswith("body.") and finished.lora is None:
            assert torch.equal(weights[name], before), name
    if finished.lora:
        linear = "body.h.1.mlp.c_fc.weight"
        assert not torch.equal(weights[linear], model.state_dict()[linear])


class Killed(Exception):
    """Stands for the death of a process."""


@pytest.mark.parametrize("steps", [3, 4, 5])
def test_a_killed_run_resumes_to_the_same_weights(
    steps: int, finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, step = replace(finished, run=tmp_path / "run"), StudentTrainer.training_step
    taken = itertools.count()

    def killed(*arguments: Any, **named: Any) -> Any:
        if next(taken) == steps:
            raise Killed
        return step(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(StudentTrainer, "training_step", killed)
        with pytest.raises(Killed):
            train(settings)
    assert RunFolder(settings.run).last_checkpoint() is not None
    train(settings, resume=True)
    require_equal_weights(finished.run, settings.run)


def test_recomputed_activations_give_the_same_adapters(finished: Any, tmp_path: Path) -> None:
    recomputed = replace(finished, run=tmp_path / "run", gradient_checkpointing=True)
    loss = train(recomputed).result.best_val_loss
    assert loss == pytest.approx(RunFolder(finished.run).read_record().result.best_val_loss)


def test_attention_that_does_not_exist_is_not_initialised(finished: Any, tmp_path: Path) -> None:
    settings = replace(
        finished, run=tmp_path / "run", cross_init="self", join=("add",), prompt_text=True
    )
    with pytest.raises(InputError, match="--cross-init self: --join add has no cross-attention"):
        train(settings)


def test_other_frozen_weights_are_refused(
    finished: Any, byte_gpt_neo: Path, tmp_path: Path
) -> None:
    student = shutil.copytree(byte_gpt_neo, tmp_path / "student")
    settings = replace(finished, run=tmp_path / "run", student=str(student), max_steps=2)
    record, folder = train(settings), RunFolder(tmp_path / "run")
    shutil.rmtree(folder.model)
    folder.write_record(replace(record, outcome=None))
    model = GPTNeoForCausalLM.from_pretrained(student)
    nn.init.normal_(model.transformer.h[0].mlp.c_fc.bias)
    model.save_pretrained(student)
    with pytest.raises(RunError, match="was trained with other frozen weights"):
        train(settings, resume=True)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"student": "tiny"}, "--lora 2: adapts pretrained weights, but --student tiny"),
        ({"new_weights": True}, "--lora 2: adapts pretrained weights"),
        ({"freeze": ("student",)}, "--lora 2: .* and --freeze student nothing of it"),
    ],
)
def test_adapters_of_nothing_are_refused(
    changes: dict[str, Any], problem: str, prompt_cache: Path, byte_gpt_neo: Path, tmp_path: Path
) -> None:
    settings = short_prompt_run(prompt_cache, tmp_path / "run", student=str(byte_gpt_neo), lora=2)
    with pytest.raises(InputError, match=problem):
        train(replace(settings, **changes))
