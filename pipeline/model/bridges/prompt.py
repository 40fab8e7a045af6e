"""`prompt`: the student reads its own tokens, joined with the teacher's states of the prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

from pipeline.model.bridges.interface import (
    Bridge,
    CrossLayers,
    GenerationStep,
    StudentInputs,
    require_tokens,
    require_width,
)
from pipeline.model.bridges.joins.dropout import drop_states
from pipeline.model.bridges.joins.interface import BodyInputs, PromptInputs
from pipeline.model.bridges.joins.registry import JOINS
from pipeline.model.bridges.standard_norm import StandardNorm
from pipeline.model.configuration import LLMModulesConfig


class PromptBridge(Bridge):
    """Normalises the states of each teacher layer, and joins them with the student's tokens.

    With a key-value cache only the first call needs the states.

    Attributes:
        norm: of each layer.
        mix: if the layers are read as one mean, the logarithms of their weights `[layers]`.
        joins: by name.
    """

    def __init__(self, config: LLMModulesConfig) -> None:
        super().__init__()
        self.dropout = config.states_dropout
        self.width, size = config.states_width, config.teacher_hidden_size
        kind = StandardNorm if config.standardise else nn.LayerNorm
        self.norm = nn.ModuleList(kind(size) for _ in config.teacher_layers)
        self.mix = nn.Parameter(torch.zeros(len(self.norm))) if config.mix_layers else None
        self.layers = CrossLayers(config, config.cross_layers)
        self.joins = nn.ModuleDict(
            {name: join(config, self.layers) for name, join in JOINS.items() if name in config.join}
        )

    def body_inputs(self, inputs: StudentInputs) -> dict[str, Any]:
        """Return the embeddings, and what the joins make of them."""
        body = BodyInputs(
            embeds=inputs.embed(require_tokens(inputs.input_ids)),
            past=inputs.past,
        )
        prompt = PromptInputs(
            layers=None if inputs.hidden_states is None else self._layers(inputs.hidden_states),
            states_mask=inputs.states_mask,
            state_places=inputs.state_places,
        )
        if self.training and self.dropout and prompt.layers is not None:
            prompt = drop_states(prompt, self.dropout)
        joins: Iterable[Any] = self.joins.values()
        for join in joins:
            join.extend(body, prompt)
        return {
            "inputs_embeds": body.embeds,
            "before_blocks": body.before_blocks,
        }

    def generation_inputs(self, step: GenerationStep) -> dict[str, Any]:
        """Return the states of the prompts at the first step, and their mask at every step."""
        if step.seen:
            return {"states_mask": step.states_mask}
        places_BT = step.state_places
        if places_BT is not None:  # without a key-value cache the answer so far is read, too
            places_BT = pad(places_BT, (0, step.input_ids.shape[1] - places_BT.shape[1]), value=-1)
        return {
            "hidden_states": step.hidden_states,
            "state_places": places_BT,
            "states_mask": step.states_mask,
        }

    @property
    def layer_weights(self) -> list[float] | None:
        """The weights of the teacher's layers, whose sum is 1; None if they are not mixed."""
        return None if self.mix is None else self.mix.detach().float().softmax(dim=0).tolist()

    def _layers(self, hidden_BKD: torch.Tensor) -> list[torch.Tensor]:
        """Return states `[B, K, d_teacher]`: one tensor per layer, or one for all if mixed."""
        of_layers = require_width(hidden_BKD, self.width).chunk(len(self.norm), dim=-1)
        normed = [norm(layer) for norm, layer in zip(self.norm, of_layers, strict=True)]
        if self.mix is None:
            return normed
        return [torch.einsum("l,lbkd->bkd", self.mix.softmax(dim=0), torch.stack(normed))]
