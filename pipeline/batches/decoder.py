"""Coded hidden states of a batch decoded where the student is: what travels there is the small integers."""

from __future__ import annotations

import torch
from torch import nn

from cache.codecs import EXACT, Codec


class StatesDecoder(nn.Module):
    """Turns the coded states of a batch into `hidden_states`; gives the values of `Codec.decode`, rounded alike."""

    channel_scales: torch.Tensor | None
    rotation: torch.Tensor | None
    mean: torch.Tensor | None

    def __init__(self, codec: Codec | None) -> None:
        """Hold what a codec was fitted with. None, or an exact codec: batches are left as they are."""
        super().__init__()
        self._reads = codec is not None and codec.name != EXACT
        parameters = {name: torch.from_numpy(values.copy()) for name, values in (codec.parameters if codec else {}).items()}
        rotation = parameters["basis"].float().T * parameters["step"] if "basis" in parameters else None
        self.register_buffer("channel_scales", parameters.get("channel_scales"), persistent=False)
        self.register_buffer("rotation", None if rotation is None else rotation.contiguous(), persistent=False)
        self.register_buffer("mean", parameters.get("mean"), persistent=False)

    @torch.no_grad()
    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The batch with `hidden_states` `[B, T, d_teacher]` bfloat16, 0 for padding, in place of what is coded."""
        if not self._reads:
            return batch
        coded = {name: batch[name] for name in ("coded_states", "token_scales", "exact_rows", "exact_states") if name in batch}
        states_BTD = coded["coded_states"].float()
        if self.channel_scales is not None:
            states_BTD = states_BTD * coded["token_scales"].unsqueeze(-1) * self.channel_scales
        if self.rotation is not None and self.mean is not None:
            states_BTD = states_BTD @ self.rotation + self.mean
        states_BTD = states_BTD.to(torch.bfloat16)
        if "exact_rows" in coded:
            rows_B, rows_T = coded["exact_rows"].unbind(dim=-1)
            states_BTD[rows_B, rows_T] = coded["exact_states"]
        states_BTD = states_BTD * batch["attention_mask"].unsqueeze(-1).to(torch.bfloat16)
        return {name: values for name, values in batch.items() if name not in coded} | {"hidden_states": states_BTD}
