"""Small students of prompts, and random inputs for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pipeline.model import LLMModulesForCausalLM, build_student
from pipeline.shapes import BridgeShape

VOCABULARY, WIDTH = 40, 12
"""Number of tokens, and width of the teacher."""


def make_prompt_student(
    student: str | Path,
    condition: str = "prompt",
    head_tokens: list[int] | None = None,
    **shape: Any,
) -> LLMModulesForCausalLM:
    """Return a student in evaluation mode; `shape` changes its bridge."""
    torch.manual_seed(0)
    return build_student(
        str(student),
        vocab_size=VOCABULARY,
        longest=60,
        teacher_hidden_size=WIDTH,
        condition=condition,
        bridge=BridgeShape(cross_heads=4, **shape),
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=0,
        head_tokens=head_tokens,
    ).eval()


def opened(student: LLMModulesForCausalLM) -> LLMModulesForCausalLM:
    """Return the student with its gates partly open."""
    for name, weights in student.named_parameters():
        if ".gate." in name:
            torch.nn.init.normal_(weights, std=0.5)
    return student


def random_inputs(
    batch: int, tokens: int, states: int, seed: int, layers: int = 1
) -> dict[str, torch.Tensor]:
    """Return token ids, and states of prompts of `states` tokens."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "input_ids": torch.randint(0, VOCABULARY, (batch, tokens), generator=generator),
        "hidden_states": torch.randn(batch, states, layers * WIDTH, generator=generator),
    }
