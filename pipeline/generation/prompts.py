"""Prompts as student tokens, and as batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from pipeline.data.conversations import Turn
from pipeline.data.student_tokens import prompt_tokens
from pipeline.data.templates import TemplateName
from pipeline.data.tokens import tokenize_prompt
from pipeline.model import LLMModulesConfig


def tokens_before(
    turns: Sequence[Turn],
    config: LLMModulesConfig,
    template: TemplateName,
    tokenizer: PreTrainedTokenizerBase,
) -> list[int]:
    """Return the tokens that a student reads before the answer."""
    if config.own_tokens:
        return prompt_tokens(turns if config.reads_prompt_tokens else None, tokenizer)
    return tokenize_prompt(turns, template, tokenizer)


def left_padded(
    prompts: Sequence[list[int]], pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return prompts as one batch `[B, T]`, padded on the left, and its mask, 0 for padding."""
    longest = max(map(len, prompts))
    ids_BT = torch.tensor([[pad] * (longest - len(ids)) + ids for ids in prompts], device=device)
    mask_BT = torch.tensor(
        [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts], device=device
    )
    return ids_BT, mask_BT
