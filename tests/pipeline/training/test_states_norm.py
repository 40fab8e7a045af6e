"""Statistics of hidden states: those of the training rows, saved with the student."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import layer_norm

from cache import open_cache
from pipeline.model import LLMModulesForCausalLM
from pipeline.runs.rows import rows_of
from pipeline.training.run import train
from tests.pipeline.short_runs import short_prompt_run


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_trained_student_has_the_statistics_of_its_training_rows(
    precision: str, prompt_cache: Path, tmp_path: Path
) -> None:
    settings = short_prompt_run(
        prompt_cache, tmp_path / "run", layers=(-1, 0), vocab="dataset", max_steps=2, eval_every=1,
        precision=precision,
    )  # fmt: skip
    train(settings)
    student = LLMModulesForCausalLM.from_pretrained(settings.run / "model")
    with open_cache(prompt_cache) as cache:
        examples = [cache[index] for index in rows_of(cache, settings)[0]]
    for norm, layer in zip(student.bridge.norm, settings.layers, strict=True):
        states_ND = torch.cat(
            [
                torch.from_numpy(example.hidden_states[layer].astype("float32"))
                for example in examples
            ]
        )
        normed_ND = layer_norm(states_ND, states_ND.shape[-1:])
        torch.testing.assert_close(norm.mean, normed_ND.mean(dim=0), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(norm.deviation, normed_ND.std(dim=0), atol=1e-4, rtol=1e-4)
