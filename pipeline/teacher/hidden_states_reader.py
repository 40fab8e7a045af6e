"""Hidden states of a base model, batched and cached only if that does not change them.

Positions, padding and key-value cache are probed on a few tokens against a plain forward pass.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property
from typing import Any

import torch
from transformers import Cache, DynamicCache, PreTrainedConfig, PreTrainedModel

from pipeline.errors import InputError
from pipeline.teacher.hooks import HiddenStateHooks, reference_states
from pipeline.teacher.shape import decoder_config, length_dependence_limit, sharing_obstacle

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Largest relative difference of states due to rounding, by compute dtype."""
_PROBE = 5
"""Tokens of a probe; odd, so that models that pad to a multiple of their window do pad it."""


class HiddenStatesReader:
    """Computes the hidden states of a plain pass of each text, in as few passes as possible."""

    def __init__(self, body: PreTrainedModel, indices: Iterable[int]) -> None:
        """Probe the base model, and drop the blocks above the last selected layer.

        Args:
            body: the base model, on its device.
            indices: of the selected layers, counted from the embeddings.

        Raises:
            InputError: the model needs more than token ids.
        """
        self._body = body
        self._ids_T = torch.tensor(_plain_tokens(body.config, _PROBE + 1), device=body.device)
        with torch.inference_mode():
            self._hooks = HiddenStateHooks(body, self._ids_T[None, :_PROBE])
            self._takes_positions = self._has_plain_positions()
            self._hooks.keep_only(indices)
        self._length_that_matters = length_dependence_limit(body.config)

    @property
    def depth(self) -> int:
        """Return the number of blocks, including the dropped ones."""
        return self._hooks.depth

    def width(self, index: int) -> int:
        """Return the width of a layer's hidden states."""
        return int(self._hooks.reference[index].shape[-1])

    def read(
        self,
        ids_BT: torch.Tensor,
        mask_BK: torch.Tensor | None = None,
        past: Cache | None = None,
        indices: Collection[int] | None = None,
    ) -> dict[int, torch.Tensor]:
        """Return the hidden states `[B, T, d_teacher]` of each selected layer, by index.

        Args:
            ids_BT: token ids.
            mask_BK: 1 for tokens, 0 for padding; with `past`, for all tokens so far.
            past: key-value cache of earlier tokens, extended in place; requires
                `continues_from_kv`.
            indices: of some of the selected layers; None: all.
        """
        if past is None and mask_BK is not None and self._needs_rows_alone(mask_BK):
            return self._read_alone(ids_BT, mask_BK, indices)
        return self._read(ids_BT, mask_BK, past, indices)

    def sees_later_tokens(self) -> bool:
        """Return whether hidden states depend on later tokens."""
        before = _PROBE - 1
        ids_BT = torch.stack(
            [self._ids_T[:_PROBE], torch.cat([self._ids_T[:before], self._ids_T[_PROBE:]])]
        )
        return any(
            not torch.allclose(
                states[0, :before], states[1, :before], rtol=1e-2, atol=1e-2, equal_nan=True
            )
            for states in self._read(ids_BT, None).values()
        )

    @cached_property
    @torch.inference_mode()
    def continues_from_kv(self) -> bool:
        """Return whether states computed from a key-value cache equal those of one pass.

        Probed with left padding, as in batches of prefixes of different lengths.
        """
        if sharing_obstacle(self._body.config) is not None:
            return False
        rows_BT, mask_BT = self._padded_probe(left=True)
        past = DynamicCache()
        try:
            self._read(rows_BT[:, :2], mask_BT[:, :2], past)
            rest = self._read(rows_BT[:, 2:], mask_BT, past)
        except Exception:  # an unknown model may fail in any way
            return False
        exact = self._read_alone(rows_BT, mask_BT)
        return all(_close(rest[layer], states[:, 2:]) for layer, states in exact.items())

    @cached_property
    def _pads_left(self) -> bool:
        return self._pads(left=True)

    @cached_property
    def _pads_right(self) -> bool:
        return self._pads(left=False)

    def _read(
        self,
        input_ids_BT: torch.Tensor,
        attention_mask_BT: torch.Tensor | None,
        past: Cache | None = None,
        indices: Collection[int] | None = None,
    ) -> dict[int, torch.Tensor]:
        inputs: dict[str, Any] = {"input_ids": input_ids_BT, "use_cache": past is not None}
        if past is not None:
            inputs["past_key_values"] = past
        if attention_mask_BT is not None:
            inputs["attention_mask"] = attention_mask_BT
            if self._takes_positions:
                positions_BT = (attention_mask_BT.cumsum(-1) - 1).clamp(min=0)
                inputs["position_ids"] = positions_BT[:, -input_ids_BT.shape[1] :]
        if (
            past is None
            and self._length_that_matters is not None
            and input_ids_BT.shape[1] >= self._length_that_matters
        ):
            # Only a text below that length resets rotary embeddings that adapted to a longer one.
            self._hooks.read(input_ids=self._ids_T[None, :_PROBE], use_cache=False)
        return self._hooks.read(indices, **inputs)

    def _needs_rows_alone(self, mask_BT: torch.Tensor) -> bool:
        """Return whether padding these rows would change their states."""
        if bool(mask_BT.all()):
            return False
        if self._length_that_matters is not None and mask_BT.shape[1] > self._length_that_matters:
            return True
        return not (self._pads_right if bool(mask_BT[:, 0].all()) else self._pads_left)

    def _read_alone(
        self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, indices: Collection[int] | None = None
    ) -> dict[int, torch.Tensor]:
        """Compute states row by row without padding; padding gets zeros."""
        batch: dict[int, torch.Tensor] = {}
        for row, (ids_T, mask_T) in enumerate(zip(ids_BT, mask_BT.bool(), strict=True)):
            if not bool(mask_T.any()):
                continue
            for layer, states_1TD in self._read(ids_T[mask_T][None], None, None, indices).items():
                empty_BTD = states_1TD.new_zeros(*ids_BT.shape, states_1TD.shape[-1])
                batch.setdefault(layer, empty_BTD)[row, mask_T] = states_1TD[0]
        return batch

    def _has_plain_positions(self) -> bool:
        """Return whether the model counts positions from 0; RoBERTa does not."""
        ids_BT = self._ids_T[None, :_PROBE]
        try:
            states = reference_states(
                self._body, ids_BT, position_ids=torch.arange(_PROBE, device=ids_BT.device)[None]
            )
        except InputError:
            return False
        return all(map(_close, states, self._hooks.reference))

    @torch.inference_mode()
    def _pads(self, *, left: bool) -> bool:
        """Return whether a padded batch has the states of each row alone."""
        rows_BT, mask_BT = self._padded_probe(left=left)
        try:
            padded = self._read(rows_BT, mask_BT)
        except Exception:  # an unknown model may fail in any way
            return False
        exact = self._read_alone(rows_BT, mask_BT)
        return all(
            _close(padded[layer].where(mask_BT[..., None] == 1, 0), states)
            for layer, states in exact.items()
        )

    def _padded_probe(self, *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return two rows and their mask; one row is padded."""
        mask_BT = torch.ones(2, _PROBE, dtype=torch.long, device=self._body.device)
        mask_BT[1, 0 if left else -1] = 0
        rows_BT = torch.stack([self._ids_T[:_PROBE], self._ids_T[1:]])
        return rows_BT * mask_BT, mask_BT


def _plain_tokens(config: PreTrainedConfig, count: int) -> list[int]:
    """Return ordinary text tokens, not padding or image placeholders."""
    parts = (config, config.get_text_config(decoder=True))
    special = {
        value
        for part in parts
        for name, value in part.to_dict().items()
        if name.endswith(("_token_id", "_token_index"))
        if isinstance(value, int)
    }
    size = int(decoder_config(config).vocab_size)
    tokens = [token for token in range(min(size, count + len(special))) if token not in special]
    return (tokens * count)[:count] if tokens else [0] * count


def _close(states: torch.Tensor, exact: torch.Tensor) -> bool:
    """Return whether two tensors are equal up to rounding, and finite in the same places."""
    if not torch.equal(states.isfinite(), exact.isfinite()):
        return False
    difference, size = (
        values.nan_to_num(0, 0, 0).float().norm() for values in (states - exact, exact)
    )
    return bool(difference <= _TOLERANCE.get(exact.dtype, 1e-3) * size)
