"""Random omission of a prompt's states in training."""

from __future__ import annotations

from dataclasses import replace

import torch

from pipeline.model.bridges.joins.interface import PromptInputs


def drop_states(prompt: PromptInputs, share: float) -> PromptInputs:
    """Return a prompt without a random share of its states; at least one is kept.

    A token whose state is left out has none.

    Args:
        prompt: with the states of at least one layer.
        share: probability of each state to be left out.
    """
    assert prompt.layers
    luck_BK = torch.rand(prompt.layers[0].shape[:2], device=prompt.layers[0].device)
    is_state_BK = torch.ones_like(luck_BK, dtype=torch.bool)
    if prompt.states_mask is not None:
        is_state_BK = prompt.states_mask.bool()
    luck_BK = luck_BK.where(is_state_BK, -1)
    best_BK = luck_BK == luck_BK.amax(dim=1, keepdim=True)
    kept_BK = ((luck_BK >= share) | best_BK) & is_state_BK
    places_BT = prompt.state_places
    if places_BT is not None:
        places_BT = places_BT.where(kept_BK.gather(1, places_BT.clamp(min=0)), -1)
    return replace(prompt, states_mask=kept_BK.long(), state_places=places_BT)
