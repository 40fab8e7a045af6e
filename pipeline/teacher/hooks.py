"""Where in a body the hidden states of its layers are taken while it runs, found by comparison with
its own output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from pipeline.errors import InputError, reason

_INPUT = -1
"""In place of a block's number: what enters the first one."""


def reference_states(
    body: PreTrainedModel, ids_BT: torch.Tensor, **options: Any
) -> list[torch.Tensor]:
    """Hidden states `[B, T, d_teacher]` of all layers as transformers gives them, the last one
    after the final norm.

    Raises:
        InputError: it cannot be read by tokens alone, or gives no hidden states.
    """
    return _all_layers(body, _plain_output(body, ids_BT, **options))


class HiddenStateHooks:
    """Takes the states of some layers out of a body's forward pass, and lets nothing run that none
    of them needs.

    A body may hold several lists of as many blocks (the towers of pictures and sounds beside the
    text decoder's): the list is taken whose blocks give, bit for bit, what transformers names its
    hidden states. Where none does, they are taken from transformers' own output, which keeps those
    of all layers in memory."""

    def __init__(self, body: PreTrainedModel, ids_BT: torch.Tensor) -> None:
        """Find the blocks by reading some tokens.

        Raises:
            InputError: as `reference_states`.
        """
        self._body, self._ids_BT = body, ids_BT
        lists = [module for module in body.modules() if isinstance(module, nn.ModuleList)]
        with _recorded(lists) as seen:
            output = _plain_output(body, ids_BT)
        self.plain = _all_layers(body, output)
        self.depth = len(self.plain) - 1
        self._indices = list(range(self.depth + 1))
        self._blocks, self._source = self._find(lists, seen)
        if getattr(output, "last_hidden_state", None) is None:
            self._blocks = None

    def keep_only(self, indices: Iterable[int]) -> None:
        """Give the states of these layers alone, and let go of the blocks above the last of
        them."""
        self._indices = list(indices)
        if self._blocks is not None and self.depth not in self._indices:
            self._drop_unneeded(self._blocks)

    def read(self, **inputs: Any) -> dict[int, torch.Tensor]:
        """Run the body; the states of each layer that is wanted."""
        if self._blocks is None:
            states = _all_layers(self._body, self._body(output_hidden_states=True, **inputs))
            return {index: states[index] for index in self._indices}
        with self._kept(self._blocks) as kept:
            output = self._body(**inputs)
        if self.depth in self._indices:
            kept[self.depth] = output.last_hidden_state  # after the final norm
        return kept

    def _find(
        self, lists: list[nn.ModuleList], seen: dict[tuple[nn.Module, int], torch.Tensor]
    ) -> tuple[nn.ModuleList | None, dict[int, int]]:
        """The text's blocks, and which of them gives the states of each layer but the last."""
        for blocks in lists:
            if len(blocks) != self.depth:
                continue
            source: dict[int, int] = {}
            for index in range(self.depth):
                # Some families of state-space models count from the first block's output.
                found = [
                    number
                    for number in (index - 1, index)
                    if _same(seen.get((blocks, number)), self.plain[index])
                ]
                if found:
                    source[index] = found[0]
            if len(source) == self.depth:
                return blocks, source
        return None, {}

    def _drop_unneeded(self, blocks: nn.ModuleList) -> None:
        needed = max(1, *(self._source[index] + 1 for index in self._indices))
        above = list(blocks[needed:])
        del blocks[needed:]
        try:
            found = self.read(input_ids=self._ids_BT, use_cache=False)
            if all(_same(found[index], self.plain[index]) for index in self._indices):
                return
        except Exception:  # a body that cannot run without them gets them back
            pass
        blocks.extend(above)

    @contextmanager
    def _kept(self, blocks: nn.ModuleList) -> Iterator[dict[int, torch.Tensor]]:
        """Collects what the wanted blocks give, while the body runs."""
        kept: dict[int, torch.Tensor] = {}
        handles = []
        for index in self._indices:
            if index < self.depth:
                handles.append(_hook(blocks, self._source[index], partial(kept.__setitem__, index)))
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
            f"teacher {type(body).__name__}: cannot read a text alone ({reason(error)}); name"
            " another"
        ) from error


def _all_layers(body: PreTrainedModel, output: Any) -> list[torch.Tensor]:
    states = getattr(output, "hidden_states", None)
    if not states:
        raise InputError(
            f"teacher {type(body).__name__}: gives no hidden states of a text; name a decoder, or"
            " with --teacher-kind encoder an encoder"
        )
    last = getattr(output, "last_hidden_state", None)
    return [*states[:-1], states[-1] if last is None else last]


@contextmanager
def _recorded(lists: list[nn.ModuleList]) -> Iterator[dict[tuple[nn.Module, int], torch.Tensor]]:
    """Collects what enters the first block of each list, and what leaves each block, while a body
    runs."""
    seen: dict[tuple[nn.Module, int], torch.Tensor] = {}
    handles = [
        _hook(blocks, number, partial(seen.__setitem__, (blocks, number)))
        for blocks in lists
        for number in range(_INPUT, len(blocks))
        if len(blocks)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _hook(blocks: nn.ModuleList, number: int, keep: Callable[[Any], None]) -> Any:
    """Have a block's output kept, or what enters the first one."""

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
