"""Forward hooks that take the hidden states of selected layers, found by comparison.

A hook's output must equal, bit for bit, the hidden state that transformers returns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from pipeline.errors import InputError, reason

_INPUT = -1
"""In place of a block's index: the input of the first block."""


class _AllRead(Exception):  # noqa: N818  # not an error
    """All hidden states are read, so the rest of the model need not run."""


def reference_states(
    body: PreTrainedModel, ids_BT: torch.Tensor, **options: Any
) -> list[torch.Tensor]:
    """Return the hidden states `[B, T, d_teacher]` of all layers, by transformers.

    Raises:
        InputError: the model needs more than token ids, or returns no hidden states.
    """
    return _all_layers(body, _plain_output(body, ids_BT, **options))


class HiddenStateHooks:
    """Hooks on the blocks of a base model; blocks above the last selected layer are dropped.

    A model may have several lists of blocks, such as an image tower's besides the text decoder's.
    The list whose outputs equal the hidden states of transformers is used. If there is none, the
    output of transformers is used, which keeps all layers in memory.
    """

    def __init__(self, body: PreTrainedModel, ids_BT: torch.Tensor) -> None:
        """Find the blocks in a forward pass of some tokens.

        Raises:
            InputError: as `reference_states`.
        """
        self._body, self._ids_BT = body, ids_BT
        lists = [module for module in body.modules() if isinstance(module, nn.ModuleList)]
        with _recorded(lists) as outputs:
            output = _plain_output(body, ids_BT)
        self.reference = _all_layers(body, output)
        self.depth = len(self.reference) - 1
        self._indices = list(range(self.depth + 1))
        self._blocks, self._source = self._find(lists, outputs)
        if getattr(output, "last_hidden_state", None) is None:
            self._blocks = None

    def keep_only(self, indices: Iterable[int]) -> None:
        """Select layers by index, and drop the blocks above the last of them."""
        self._indices = list(indices)
        if self._blocks is not None and self.depth not in self._indices:
            self._drop_unneeded(self._blocks)

    def read(
        self, indices: Collection[int] | None = None, **inputs: Any
    ) -> dict[int, torch.Tensor]:
        """Run the model and return the hidden states of selected layers, by index.

        Args:
            indices: of some of the selected layers; blocks above the last one do not run. None:
                all selected layers.
            inputs: of the model.
        """
        indices = self._indices if indices is None else indices
        if self._blocks is None:
            states = _all_layers(self._body, self._body(output_hidden_states=True, **inputs))
            return {index: states[index] for index in indices}
        with self._kept(self._blocks, indices) as kept, suppress(_AllRead):
            output = self._body(**inputs)
            if self.depth in indices:
                kept[self.depth] = output.last_hidden_state  # after the final norm
        return kept

    def _find(
        self, lists: list[nn.ModuleList], outputs: dict[tuple[nn.Module, int], torch.Tensor]
    ) -> tuple[nn.ModuleList | None, dict[int, int]]:
        """Return the text blocks, and the block that computes each layer but the last."""
        for blocks in lists:
            if len(blocks) != self.depth:
                continue
            source: dict[int, int] = {}
            for index in range(self.depth):
                # Some state-space models count from the first block's output.
                matches = [
                    number
                    for number in (index - 1, index)
                    if _same(outputs.get((blocks, number)), self.reference[index])
                ]
                if matches:
                    source[index] = matches[0]
            if len(source) == self.depth:
                return blocks, source
        return None, {}

    def _drop_unneeded(self, blocks: nn.ModuleList) -> None:
        needed = max(1, *(self._source[index] + 1 for index in self._indices))
        above = list(blocks[needed:])
        del blocks[needed:]
        try:
            states = self.read(input_ids=self._ids_BT, use_cache=False)
            if all(_same(states[index], self.reference[index]) for index in self._indices):
                return
        except Exception:  # the model cannot run without these blocks
            pass
        blocks.extend(above)

    @contextmanager
    def _kept(
        self, blocks: nn.ModuleList, indices: Collection[int]
    ) -> Iterator[dict[int, torch.Tensor]]:
        """Collect the outputs of blocks while the model runs, and stop it after the last one."""
        kept: dict[int, torch.Tensor] = {}
        handles = []
        for index in indices:
            if index < self.depth:
                handles.append(_hook(blocks, self._source[index], partial(kept.__setitem__, index)))
        if self.depth not in indices:
            # the first block always runs: it extends the key-value cache, which counts positions
            last = max(0, *(self._source[index] for index in indices))
            handles.append(_hook(blocks, last, _stop))
        try:
            yield kept
        finally:
            for handle in handles:
                handle.remove()


def _plain_output(body: PreTrainedModel, ids_BT: torch.Tensor, **options: Any) -> Any:
    try:
        return body(input_ids=ids_BT, output_hidden_states=True, use_cache=False, **options)
    except Exception as error:
        raise InputError(
            f"teacher {type(body).__name__}: needs more than token ids ({reason(error)}); choose a"
            " text model"
        ) from error


def _all_layers(body: PreTrainedModel, output: Any) -> list[torch.Tensor]:
    states = getattr(output, "hidden_states", None)
    if not states:
        raise InputError(
            f"teacher {type(body).__name__}: returns no hidden states; choose a decoder, or an"
            " encoder with --teacher-kind encoder"
        )
    last = getattr(output, "last_hidden_state", None)
    return [*states[:-1], states[-1] if last is None else last]


@contextmanager
def _recorded(lists: list[nn.ModuleList]) -> Iterator[dict[tuple[nn.Module, int], torch.Tensor]]:
    """Collect the output of every block, and the input of every first one, while a model runs."""
    outputs: dict[tuple[nn.Module, int], torch.Tensor] = {}
    handles = [
        _hook(blocks, number, partial(outputs.__setitem__, (blocks, number)))
        for blocks in lists
        for number in range(_INPUT, len(blocks))
        if len(blocks)
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _stop(_states: torch.Tensor) -> None:
    raise _AllRead


def _hook(blocks: nn.ModuleList, number: int, keep: Callable[[Any], None]) -> Any:
    """Register a hook that passes on a block's output, or the input of the first block."""

    def keep_input(_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keep(args[0] if args else kwargs.get("hidden_states"))

    def keep_output(_block: nn.Module, _args: Any, output: Any) -> None:
        keep(output[0] if isinstance(output, tuple) else output)

    if number == _INPUT:
        return blocks[0].register_forward_pre_hook(keep_input, with_kwargs=True)
    return blocks[number].register_forward_hook(keep_output)


def _same(one: Any, other: torch.Tensor) -> bool:
    if not isinstance(one, torch.Tensor) or one.shape != other.shape:
        return False
    return torch.allclose(one.to(other.dtype), other, rtol=0, atol=0, equal_nan=True)
