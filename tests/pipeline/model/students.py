"""Small students of whole examples, and random inputs for them."""

from __future__ import annotations

from typing import Any

import torch

from pipeline.model import LLMModulesForCausalLM, build_student
from pipeline.shapes import BridgeShape

VOCABULARY, WIDTH = 50, 12
"""Number of tokens, and width of the teacher."""


def make_student(
    student: str = "tiny",
    *,
    longest: int = 400,
    condition: str = "sequence",
    cross_attention: str = "causal",
    head_tokens: list[int] | None = None,
    **shape: Any,
) -> LLMModulesForCausalLM:
    """Return a student in evaluation mode; `shape` changes its bridge."""
    torch.manual_seed(0)
    model = build_student(
        student,
        vocab_size=VOCABULARY,
        longest=longest,
        teacher_hidden_size=WIDTH,
        condition=condition,
        bridge=BridgeShape(cross_attention=cross_attention, **shape),
        eos_token_id=1,
        pad_token_id=0,
        head_tokens=head_tokens,
    )
    return model.eval()


def random_inputs(batch: int, tokens: int, seed: int) -> dict[str, torch.Tensor]:
    """Return token ids and hidden states of `batch` examples."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": torch.randn(batch, tokens, WIDTH, generator=generator),
        "input_ids": torch.randint(0, VOCABULARY, (batch, tokens), generator=generator),
    }
