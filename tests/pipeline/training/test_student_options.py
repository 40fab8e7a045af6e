"""Options of the student: layers, vocabulary, frozen parts, recomputed activations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cache import open_cache
from pipeline.choices import PARTS
from pipeline.data.vocabulary import VOCABULARY, read_vocabulary
from pipeline.errors import InputError
from pipeline.evaluation.run import evaluate
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.model import LLMModulesForCausalLM
from pipeline.model.self_attention import FusedSelfAttention
from pipeline.processes import Share
from pipeline.training.prepare import prepare_run
from pipeline.training.run import train
from tests.pipeline.short_runs import short_run, weights_of


def test_recomputed_activations_give_the_same_student(
    small_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attend, passes = FusedSelfAttention.forward, {False: 0, True: 0}
    for recompute in (False, True):

        def counted(
            layer: FusedSelfAttention, *args: Any, recompute: bool = recompute, **kwargs: Any
        ) -> Any:
            passes[recompute] += layer.training
            return attend(layer, *args, **kwargs)

        monkeypatch.setattr(FusedSelfAttention, "forward", counted)
        run = tmp_path / str(recompute)
        train(short_run(small_cache, run, max_steps=3, gradient_checkpointing=recompute))
    assert passes[True] == 2 * passes[False] > 0
    stored, recomputed = weights_of(tmp_path / "False"), weights_of(tmp_path / "True")
    for name, values in stored.items():
        assert torch.allclose(values, recomputed[name], atol=1e-6), name


def test_a_head_over_the_vocabulary_is_trained_saved_and_generates(
    embedded_settings: Callable[..., ExtractSettings], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    extract(prepare(embedded_settings(cache=cache, limit=60)))
    record = train(short_run(cache, tmp_path / "run", vocab="dataset", epochs=2))
    whole = train(short_run(cache, tmp_path / "whole", max_steps=1))
    assert record.result.parameters < whole.result.parameters
    with open_cache(cache) as opened:
        occurring = {int(token) for example in opened for token in example.input_ids}
        vocabulary = set(read_vocabulary(opened.attachment(VOCABULARY)))
    assert occurring <= vocabulary
    student = LLMModulesForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert student.head_tokens is not None
    assert student.head_tokens.tolist() == sorted(vocabulary)
    results = evaluate(
        EvaluateSettings(run=tmp_path / "run", samples=2, max_new_tokens=8, device="cpu")
    )
    assert results.student.val_loss == pytest.approx(record.result.best_val_loss, rel=1e-4)


def test_a_student_of_two_layers_is_trained_and_evaluated(
    small_cache: Path, tmp_path: Path
) -> None:
    record = train(short_run(small_cache, tmp_path / "run", layers=(0, -1), epochs=2))
    results = evaluate(
        EvaluateSettings(run=tmp_path / "run", samples=2, max_new_tokens=8, device="cpu")
    )
    assert results.student.layers == [0, -1]
    assert results.student.val_loss == pytest.approx(record.result.best_val_loss, rel=1e-4)


@pytest.mark.parametrize("part", PARTS)
def test_a_frozen_part_keeps_its_weights_and_the_rest_is_trained(
    part: str, small_cache: Path, tmp_path: Path
) -> None:
    settings = short_run(small_cache, tmp_path / "run", max_steps=2, freeze=(part,))
    with open_cache(small_cache) as cache:
        weights = prepare_run(cache, settings, Share()).model.state_dict()
        before = {name: values.clone() for name, values in weights.items()}
    train(settings)
    prefix = {"student": "body.", "bridge": "bridge.", "head": "lm_head."}[part]
    for name, values in weights_of(tmp_path / "run").items():
        assert torch.equal(values, before[name]) == name.startswith(prefix), name


def test_a_student_without_trainable_parts_is_refused(small_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is left to train"):
        train(short_run(small_cache, tmp_path / "run", freeze=PARTS))
    assert not (tmp_path / "run").exists()
