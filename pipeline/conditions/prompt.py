"""`prompt`: the student's own tokens of the answer, and the teacher's states of the prompt."""

from __future__ import annotations

from pipeline.conditions.cached import PROMPTS, WHOLE_EXAMPLES
from pipeline.conditions.interface import Condition
from pipeline.errors import InputError
from pipeline.shapes import Body, BridgeShape, CrossPlacement


class PromptCondition(Condition):
    """Own tokens, of the answer or of prompt and answer, joined with the states of the prompt."""

    name = "prompt"
    reads_states = True
    own_tokens = True
    reads_prompt_tokens = False
    is_aligned = False
    may_leak = False
    caches = (PROMPTS, WHOLE_EXAMPLES)
    sizes_bridge_by = "cross_every"
    without_teacher = "text"

    def describe_input(self, shape: BridgeShape, layers: str) -> str:
        """Return the layers, of the prompt, how they join the student, and the prompt's tokens."""
        mean = "mean of " if shape.mix_layers else ""
        joins = "" if shape.join == BridgeShape.join else f", joined by {' and '.join(shape.join)}"
        tokens = ", and the prompt in its own tokens" if shape.prompt_text else ""
        return f"{mean}{layers}, of the prompt{joins}{tokens}"

    def trivial_note(self, shape: BridgeShape) -> str:
        """Return that attention has no order; states that are added keep that of the tokens."""
        if "add" in shape.join:
            return ""
        return (
            "Shuffled is trivial here: attention to a prompt has no order, because its states"
            " contain their positions."
        )

    def aligns_states(self, shape: CrossPlacement) -> bool:
        """Return whether states are added to the embeddings of tokens."""
        return "add" in shape.join

    def cross_blocks(self, shape: CrossPlacement, blocks: int) -> list[int]:
        """Return the last of every `cross_every` blocks; none unless the states join by `cross`."""
        return (
            list(range(shape.cross_every - 1, blocks, shape.cross_every))
            if "cross" in shape.join
            else []
        )

    def require_placement(self, shape: BridgeShape, body: Body) -> None:
        """Refuse a student of too few blocks, and gates that cannot start closed.

        Raises:
            InputError: names the option to change.
        """
        if "cross" in shape.join and not self.cross_layers(shape, body.num_layers):
            raise InputError(
                f"--cross-every {shape.cross_every}: this student has only {body.num_layers}"
                " blocks; choose a smaller number"
            )
        if "cross" in shape.join and shape.gate == "none":
            raise InputError(
                "--gate none: --condition prompt needs a gate that starts closed; choose channel,"
                " scalar or static"
            )
        if shape.cross_attention != "causal":
            raise InputError(
                f"--cross-attention {shape.cross_attention}: --condition prompt supports only"
                " causal; omit it"
            )

    def require_readings(self, shape: BridgeShape) -> None:
        """Refuse joins that contradict each other, and layers that nothing reads.

        Raises:
            InputError: names the option to change.
        """
        if not shape.join or len({*shape.join}) < len(shape.join):
            raise InputError("--join: name each way once, and at least one")
        if "add" in shape.join and not shape.prompt_text:
            raise InputError(
                "--join add: adds states to the prompt's own tokens; add --prompt-text"
            )
        if shape.mix_layers and len(shape.teacher_layers) == 1:
            raise InputError(
                f"--mix-layers: there is nothing to mix in --layers {shape.layers[0]}; name several"
                " layers, or omit it"
            )
        if shape.join != ("cross",) and len(shape.layers) > 1 and not shape.mix_layers:
            raise InputError(
                f"--layers {','.join(map(str, shape.layers))}: only --join cross reads several"
                " layers one by one; add --mix-layers, or name one layer"
            )
