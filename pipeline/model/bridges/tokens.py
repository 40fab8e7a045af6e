"""`none` and `text`: the decoder reads tokens through its own embeddings."""

from __future__ import annotations

from typing import Any

from pipeline.model.bridges.interface import (
    Bridge,
    CrossLayers,
    StudentInputs,
    positions,
    require_tokens,
)
from pipeline.model.configuration import LLMModulesConfig


class TokensBridge(Bridge):
    """No bridge: it has no weights."""

    def __init__(self, config: LLMModulesConfig) -> None:
        super().__init__()
        self.layers = CrossLayers(config, 0)

    def body_inputs(self, inputs: StudentInputs) -> dict[str, Any]:
        """Return the tokens with their positions."""
        ids_BT = require_tokens(inputs.input_ids)
        return {"input_ids": ids_BT, "position_ids": positions(ids_BT, inputs.attention_mask)}
