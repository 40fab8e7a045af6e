"""`add`: projected states added to the embeddings of the prompt's tokens (arXiv 2402.16844)."""

from __future__ import annotations

from pipeline.model.bridges.joins.interface import NO_STATES, BodyInputs, Join, PromptInputs
from pipeline.model.bridges.joins.projection import Projection
from pipeline.model.configuration import LLMModulesConfig


class AddJoin(Join):
    """To each token of the prompt its state is added, projected to the student's width.

    The projection is scaled to the length of the token's embedding, which differs tenfold between
    decoders. It starts at zero, so that the untrained student equals its bare decoder.
    """

    def __init__(self, config: LLMModulesConfig) -> None:
        super().__init__()
        self.project = Projection(config.teacher_hidden_size, config.hidden_size)

    def extend(self, inputs: BodyInputs, prompt: PromptInputs) -> None:
        """Add to the embeddings at the first step; later tokens belong to the answer."""
        if inputs.past is not None and inputs.past.get_seq_length() and prompt.layers is None:
            return
        if prompt.layers is None or prompt.state_places is None:
            raise ValueError(f"{NO_STATES}, or no state_places")
        projected_BKS = self.project(prompt.layers[-1])
        places_BT1 = prompt.state_places[..., None]
        added_BTS = projected_BKS.gather(
            1, places_BT1.clamp(min=0).expand(-1, -1, projected_BKS.shape[-1])
        )
        scale_BT1 = inputs.embeds.detach().square().mean(dim=-1, keepdim=True).sqrt()
        inputs.embeds = inputs.embeds + added_BTS * scale_BT1 * (places_BT1 >= 0)
