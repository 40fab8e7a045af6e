"""`none` and `text`: students that only read tokens, as controls and baselines."""

from __future__ import annotations

from pipeline.conditions.cached import PROMPTS, WHOLE_EXAMPLES
from pipeline.conditions.interface import Condition
from pipeline.shapes import BridgeShape


class TokensCondition(Condition):
    """Tokens of prompt and answer, without a teacher."""

    reads_states = False
    reads_prompt_tokens = True
    is_aligned = False
    may_leak = False
    sizes_bridge_by = "cross_layers"


class NoneCondition(TokensCondition):
    """The teacher's tokens, through trained embeddings."""

    name = "none"
    own_tokens = False
    caches = (WHOLE_EXAMPLES,)
    without_teacher = "none"

    def describe_input(self, shape: BridgeShape, layers: str) -> str:
        """Return that there is no teacher."""
        return "the tokens themselves, no teacher"


class TextCondition(TokensCondition):
    """Prompt and answer in the decoder's own tokens."""

    name = "text"
    own_tokens = True
    caches = (PROMPTS, WHOLE_EXAMPLES)
    without_teacher = "text"

    def describe_input(self, shape: BridgeShape, layers: str) -> str:
        """Return that there is no teacher."""
        return "prompt and answer in its own tokens, no teacher"
