"""`sequence`: the teacher's hidden states of every token replace token embeddings."""

from __future__ import annotations

from pipeline.conditions.cached import WHOLE_EXAMPLES
from pipeline.conditions.interface import Condition
from pipeline.shapes import BridgeShape


class SequenceCondition(Condition):
    """Hidden states of every token, prompt and answer, in the teacher's tokens."""

    name = "sequence"
    reads_states = True
    own_tokens = False
    reads_prompt_tokens = True
    is_aligned = True
    may_leak = True
    caches = (WHOLE_EXAMPLES,)
    sizes_bridge_by = "cross_layers"
    without_teacher = "none"
    trivial_ablations = frozenset({"mismatched", "shuffled", "zeroed"})

    def describe_input(self, shape: BridgeShape, layers: str) -> str:
        """Return the layers."""
        return layers

    def trivial_note(self, shape: BridgeShape) -> str:
        """Return that the states are all that the student reads."""
        return (
            "Mismatched, shuffled and zeroed are trivial here: this student sees the text only"
            " through the states, and cannot work without them. Gates shut are not: the rest of the"
            " bridge stays open."
        )
