"""`prefix`: projected states as embeddings before the student's tokens."""

from __future__ import annotations

import torch

from pipeline.model.bridges.joins.interface import (
    NO_STATES,
    BodyInputs,
    Join,
    PromptInputs,
    states_before,
)
from pipeline.model.bridges.joins.projection import Projection
from pipeline.model.configuration import LLMModulesConfig


class PrefixJoin(Join):
    """Each state takes a position before the first token, and passes through all blocks."""

    def __init__(self, config: LLMModulesConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.project = Projection(config.teacher_hidden_size, size, size, closed=False)

    def extend(self, inputs: BodyInputs, prompt: PromptInputs) -> None:
        """Put the states before the embeddings at the first step, and mask them at every step."""
        if inputs.past is not None and inputs.past.get_seq_length():
            mask_BL = states_before(inputs, prompt, prompt.cached_states)
            order_BL = _padding_first(mask_BL, prompt.cached_states)
            inputs.attention_mask = mask_BL.gather(1, order_BL)
            return
        if prompt.layers is None:
            raise ValueError(NO_STATES)
        projected_BKS = self.project(prompt.layers[-1])
        inputs.leading = projected_BKS.shape[1]
        mask_BL = states_before(inputs, prompt, inputs.leading)
        order_BL = _padding_first(mask_BL, inputs.leading)
        embeds_BLS = torch.cat([projected_BKS, inputs.embeds], dim=1)
        inputs.embeds = embeds_BLS.gather(1, order_BL[..., None].expand_as(embeds_BLS))
        inputs.attention_mask = mask_BL.gather(1, order_BL)


def _padding_first(mask_BL: torch.Tensor, states: int) -> torch.Tensor:
    """Return the order `[B, L]` in which each prompt's states directly precede its tokens.

    The padding of states, and of tokens on the left, comes first. So a token is as far from the
    states in a batch as alone, which sliding windows depend on.

    Args:
        mask_BL: 1 for states and tokens, 0 for padding.
        states: number of positions of states.
    """
    place_L = torch.arange(mask_BL.shape[1], device=mask_BL.device)
    tokens_BL = mask_BL.bool() & (place_L >= states)
    first_B1 = tokens_BL.int().argmax(dim=1, keepdim=True)
    keeps_place_BL = mask_BL.bool() | (place_L >= first_B1)
    return keeps_place_BL.int().argsort(dim=1, stable=True)
