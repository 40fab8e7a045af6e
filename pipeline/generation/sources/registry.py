"""The source class of each condition."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.generation.sources.interface import SourceOptions, StatesSource
from pipeline.generation.sources.live import LiveSource
from pipeline.generation.sources.prompt import PromptSource
from pipeline.generation.sources.tokens import NoSource

SOURCES: dict[str, Callable[[SourceOptions], StatesSource]] = {
    "sequence": LiveSource,
    "prompt": PromptSource,
    "none": NoSource,
    "text": NoSource,
}
