"""How a body is best read (positions, padding, key-value cache), tried out on a few tokens against
a plain pass."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import torch
from transformers import Cache, DynamicCache, PreTrainedConfig, PreTrainedModel

from pipeline.errors import InputError
from pipeline.teacher.hooks import HiddenStateHooks, reference_states
from pipeline.teacher.shape import decoder_config, length_dependence_limit, sharing_obstacle

_CLOSE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Largest relative difference of states that another order of the same sums brings, by the type
that is computed in."""
_PROBE = 5
"""Tokens that are tried; an odd number, which no model that pads to a multiple of its window takes
as it is."""


class HiddenStatesReader:
    """Gives the hidden states that a plain pass of each text would give, by as few and as large
    passes as the body allows."""

    def __init__(self, body: PreTrainedModel, indices: Iterable[int]) -> None:
        """Find out how the body is read; what lies above the last layer that is wanted is let go
        of.

        Args:
            body: on its device.
            indices: of the layers, counted from the embeddings.

        Raises:
            InputError: it cannot be read by tokens alone.
        """
        self._body = body
        self._ids_T = torch.tensor(_plain_tokens(body.config, _PROBE + 1), device=body.device)
        with torch.inference_mode():
            self._taps = HiddenStateHooks(body, self._ids_T[None, :_PROBE])
            self._takes_positions = self._has_plain_positions()
            self._taps.keep_only(indices)
        self._length_that_matters = length_dependence_limit(body.config)

    @property
    def depth(self) -> int:
        """How many blocks the body has, those above the last wanted layer counted."""
        return self._taps.depth

    def width(self, index: int) -> int:
        """How wide a layer's states are."""
        return int(self._taps.plain[index].shape[-1])

    def read(
        self, ids_BT: torch.Tensor, mask_BK: torch.Tensor | None = None, past: Cache | None = None
    ) -> dict[int, torch.Tensor]:
        """Hidden states `[B, T, d_teacher]` of each wanted layer, by index.

        Args:
            ids_BT: token ids.
            mask_BK: 1 for tokens, 0 for padding; with `past`, over all tokens so far.
            past: keys and values of the tokens before these; extended in place. Only where it
                `continues_from_kv`.
        """
        if past is None and mask_BK is not None and self._needs_rows_alone(mask_BK):
            return self._read_alone(ids_BT, mask_BK)
        return self._read(ids_BT, mask_BK, past)

    def sees_later_tokens(self) -> bool:
        """Whether states change with the tokens after them."""
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
        """Whether tokens read in two parts, the second from the key-value cache of the first, get
        the states of one pass, in a batch with padding on the left."""
        if sharing_obstacle(self._body.config) is not None:
            return False
        rows_BT, mask_BT = self._padded_probe(left=True)
        past = DynamicCache()
        try:
            self._read(rows_BT[:, :2], mask_BT[:, :2], past)
            rest = self._read(rows_BT[:, 2:], mask_BT, past)
        except Exception:  # whatever a model of an unknown kind does with a key-value cache
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
            and input_ids_BT.shape[1] > self._length_that_matters
        ):
            self._taps.read(
                input_ids=self._ids_T[None, :_PROBE], use_cache=False
            )  # a short text, which makes it forget long ones
        return self._taps.read(**inputs)

    def _needs_rows_alone(self, mask_BT: torch.Tensor) -> bool:
        """Whether a padded batch of these rows would give other states than each row alone."""
        if bool(mask_BT.all()):
            return False
        if self._length_that_matters is not None and mask_BT.shape[1] > self._length_that_matters:
            return True
        return not (self._pads_right if bool(mask_BT[:, 0].all()) else self._pads_left)

    def _read_alone(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> dict[int, torch.Tensor]:
        """The same states as of a padded batch, row by row without padding; 0 where there is
        padding."""
        found: dict[int, torch.Tensor] = {}
        for row, (ids_T, mask_T) in enumerate(zip(ids_BT, mask_BT.bool(), strict=True)):
            for layer, states in (
                self._read(ids_T[mask_T][None], None).items() if bool(mask_T.any()) else ()
            ):
                found.setdefault(layer, states.new_zeros(*ids_BT.shape, states.shape[-1]))[
                    row, mask_T
                ] = states[0]
        return found

    def _has_plain_positions(self) -> bool:
        """Whether tokens counted from 0 are at the positions that the model itself gives them;
        RoBERTa's are not."""
        ids_BT = self._ids_T[None, :_PROBE]
        try:
            counted = reference_states(
                self._body, ids_BT, position_ids=torch.arange(_PROBE, device=ids_BT.device)[None]
            )
        except InputError:
            return False
        return all(map(_close, counted, self._taps.plain))

    @torch.inference_mode()
    def _pads(self, *, left: bool) -> bool:
        """Whether a padded batch gives the states of each row alone."""
        rows_BT, mask_BT = self._padded_probe(left=left)
        try:
            padded = self._read(rows_BT, mask_BT)
        except Exception:  # whatever a model of an unknown kind does with padding
            return False
        exact = self._read_alone(rows_BT, mask_BT)
        return all(
            _close(padded[layer].where(mask_BT[..., None] == 1, 0), states)
            for layer, states in exact.items()
        )

    def _padded_probe(self, *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Two rows, one of them padded."""
        mask_BT = torch.ones(2, _PROBE, dtype=torch.long, device=self._body.device)
        mask_BT[1, 0 if left else -1] = 0
        rows_BT = torch.stack([self._ids_T[:_PROBE], self._ids_T[1:]])
        return rows_BT * mask_BT, mask_BT


def _plain_tokens(config: PreTrainedConfig, count: int) -> list[int]:
    """Tokens that mean text and nothing else: no padding, no place of a picture."""
    parts = (config, config.get_text_config(decoder=True))
    special = {
        value
        for part in parts
        for name, value in part.to_dict().items()
        if name.endswith(("_token_id", "_token_index"))
        if isinstance(value, int)
    }
    size = int(decoder_config(config).vocab_size)
    found = [token for token in range(min(size, count + len(special))) if token not in special]
    return (found * count)[:count] if found else [0] * count


def _close(found: torch.Tensor, exact: torch.Tensor) -> bool:
    """Whether two are the same but for rounding; what is not finite must be so in both."""
    if not torch.equal(found.isfinite(), exact.isfinite()):
        return False
    difference, size = (
        (each.nan_to_num(0, 0, 0).float()).norm() for each in (found - exact, exact)
    )
    return bool(difference <= _CLOSE.get(exact.dtype, 1e-3) * size)
