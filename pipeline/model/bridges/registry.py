"""The bridge class of each condition."""

from __future__ import annotations

from pipeline.model.bridges.interface import Bridge
from pipeline.model.bridges.prompt import PromptBridge
from pipeline.model.bridges.sequence import SequenceBridge
from pipeline.model.bridges.tokens import TokensBridge
from pipeline.model.configuration import LLMModulesConfig

BRIDGES: dict[str, type[Bridge]] = {
    "sequence": SequenceBridge,
    "prompt": PromptBridge,
    "none": TokensBridge,
    "text": TokensBridge,
}


def build_bridge(config: LLMModulesConfig) -> Bridge:
    """Return a new bridge for the condition of a configuration."""
    return BRIDGES[config.condition](config)
