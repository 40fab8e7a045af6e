"""`none` and `text`: GPT-Neo reads tokens through its own embeddings."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache

from pipeline.model.bridges.interface import Bridge, CrossLayers, positions, require_tokens
from pipeline.model.configuration import LLMModulesConfig


class TokensBridge(Bridge):
    """No bridge: it has no weights."""

    def __init__(self, config: LLMModulesConfig) -> None:
        super().__init__()
        self.layers = CrossLayers(config, 0)

    def body_inputs(
        self,
        *,
        input_ids: torch.Tensor | None,
        hidden_states: torch.Tensor | None,
        states_mask: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        past: Cache | None,
    ) -> dict[str, Any]:
        """Return the tokens with their positions."""
        ids_BT = require_tokens(input_ids)
        return {"input_ids": ids_BT, "position_ids": positions(ids_BT, attention_mask)}
