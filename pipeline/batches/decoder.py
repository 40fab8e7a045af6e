"""Decode the hidden states of a batch on the training device, to transfer only coded values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from cache.codecs import EXACT, Codec


class StatesDecoder(nn.Module):
    """Decodes the states of a batch into `hidden_states`, with the values of `Codec.decode`."""

    def __init__(
        self, codecs: Sequence[Codec], *, read: int | None = None, predicts: int | None = None
    ) -> None:
        """Take the fits of some layers' codecs; without codecs, batches are not changed.

        Args:
            codecs: of the layers that the batches carry.
            read: the student reads this many layers, the first ones; None: all.
            predicts: index of the layer to return as `target_states` (see `SoftTargets`).
        """
        super().__init__()
        self._layers = nn.ModuleList(map(_LayerDecoder, codecs))
        self._read, self._predicts = len(codecs) if read is None else read, predicts

    @torch.no_grad()
    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the batch with decoded instead of stored states.

        `hidden_states` are `[B, T, layers * d_teacher]` bfloat16, 0 for padding: the layers that
        the student reads, concatenated in the order of the codecs.
        """
        if not len(self._layers):
            return batch
        stored = {name: values for name, values in batch.items() if "." in name}
        mask = batch["states_mask" if "states_mask" in batch else "attention_mask"]
        states = []
        for number, layer in enumerate(self._layers):
            layer_values = {
                name.partition(".")[0]: values
                for name, values in stored.items()
                if name.endswith(f".{number}")
            }
            states.append(layer(layer_values, mask))
        decoded = {name: values for name, values in batch.items() if name not in stored}
        if self._read:
            decoded["hidden_states"] = (
                states[0] if self._read == 1 else torch.cat(states[: self._read], dim=-1)
            )
        if self._predicts is not None:
            decoded["target_states"] = states[self._predicts]
        return decoded


class _LayerDecoder(nn.Module):
    channel_scales: torch.Tensor | None
    rotation: torch.Tensor | None
    mean: torch.Tensor | None

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self._is_exact = codec.name == EXACT
        parameters = {
            name: torch.from_numpy(values.copy()) for name, values in codec.parameters.items()
        }
        rotation = (
            parameters["basis"].float().T * parameters["step"] if "basis" in parameters else None
        )
        self.register_buffer("channel_scales", parameters.get("channel_scales"), persistent=False)
        self.register_buffer(
            "rotation", None if rotation is None else rotation.contiguous(), persistent=False
        )
        self.register_buffer("mean", parameters.get("mean"), persistent=False)

    def forward(
        self, stored: dict[str, torch.Tensor], attention_mask_BT: torch.Tensor
    ) -> torch.Tensor:
        if self._is_exact:
            return stored["hidden_states"]
        states_BTD = stored["coded_states"].float()
        if self.channel_scales is not None:
            states_BTD = states_BTD * stored["token_scales"].unsqueeze(-1) * self.channel_scales
        if self.rotation is not None and self.mean is not None:
            states_BTD = states_BTD @ self.rotation + self.mean
        states_BTD = states_BTD.to(torch.bfloat16)
        if "exact_rows" in stored:
            rows_B, rows_T = stored["exact_rows"].unbind(dim=-1)
            states_BTD[rows_B, rows_T] = stored["exact_states"]
        return states_BTD * attention_mask_BT.unsqueeze(-1).to(torch.bfloat16)
