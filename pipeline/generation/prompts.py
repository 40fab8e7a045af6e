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
    prompts: Sequence[list[int]], pad: int, device: torch.device, *, first: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return prompts as one batch `[B, T]`, and its mask, 0 for padding.

    Args:
        prompts: token ids of each.
        pad: token id of the padding.
        device: of the batch.
        first: number of tokens that precede the padding, for a prefix that all prompts share.
    """
    longest = max(map(len, prompts))
    missing = [longest - len(ids) for ids in prompts]
    rows = [ids[:first] + [pad] * m + ids[first:] for ids, m in zip(prompts, missing, strict=True)]
    masks = [[1] * first + [0] * m + [1] * (longest - first - m) for m in missing]
    return torch.tensor(rows, device=device), torch.tensor(masks, device=device)
