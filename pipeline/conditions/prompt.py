"""`prompt`: the student's own tokens of the answer, and the teacher's states of the prompt."""

from __future__ import annotations

from pipeline.conditions.cached import PROMPTS, WHOLE_EXAMPLES
from pipeline.conditions.interface import Condition
from pipeline.errors import InputError
from pipeline.shapes import Body, BridgeShape


class PromptCondition(Condition):
    """Own tokens of the answer; cross-attention inside GPT-Neo to the states of the prompt."""

    name = "prompt"
    reads_states = True
    own_tokens = True
    reads_prompt_tokens = False
    is_aligned = False
    may_leak = False
    caches = (PROMPTS, WHOLE_EXAMPLES)
    sizes_bridge_by = "cross_every"
    without_teacher = "text"
    trivial_ablations = frozenset({"shuffled"})
    trivial_note = (
        "Shuffled is trivial here: attention to a prompt has no order, because its states contain"
        " their positions."
    )

    def describe_input(self, layers: str) -> str:
        """Return the layers, of the prompt."""
        return f"{layers}, of the prompt"

    def cross_blocks(self, cross_every: int, blocks: int) -> list[int]:
        """Return the last of every `cross_every` blocks."""
        return list(range(cross_every - 1, blocks, cross_every))

    def require_placement(self, shape: BridgeShape, body: Body) -> None:
        """Refuse a GPT-Neo of too few blocks, and gates that cannot start closed.

        Raises:
            InputError: names the option to change.
        """
        if not self.cross_layers(shape, body.num_layers):
            raise InputError(
                f"--cross-every {shape.cross_every}: this GPT-Neo has only {body.num_layers}"
                " blocks; choose a smaller number"
            )
        if shape.gate == "none":
            raise InputError(
                "--gate none: --condition prompt needs a gate that starts closed; choose channel or"
                " scalar"
            )
        if shape.cross_attention != "causal":
            raise InputError(
                f"--cross-attention {shape.cross_attention}: --condition prompt supports only"
                " causal; omit it"
            )
