"""The blocks of any body, found from the model itself, and functions applied before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from pipeline.errors import InputError

Functions = Mapping[int, Callable[[torch.Tensor], torch.Tensor]]
"""For the numbers of some blocks a function of their input states `[B, T, d]`."""


def find_blocks(body: nn.Module, count: int) -> nn.ModuleList:
    """Return the list of a body's `count` blocks.

    Lists inside other lists, such as the experts of each block, are not considered. Of several
    lists the one whose members transformers can checkpoint is chosen: those are whole blocks.

    Raises:
        InputError: there is no such list, or more than one.
    """
    lists: dict[str, nn.ModuleList] = {}
    for name, module in body.named_modules():
        is_inside = any(name.startswith(f"{outer}.") for outer in lists)
        if isinstance(module, nn.ModuleList) and len(module) == count and not is_inside:
            lists[name] = module
    if len(lists) > 1:
        lists = {name: blocks for name, blocks in lists.items() if can_checkpoint(blocks)} or lists
    if len(lists) != 1:
        found = f"are {', '.join(lists)}" if lists else "is none"
        raise InputError(
            f"student {type(body).__name__}: its {count} blocks cannot be found (of lists of as"
            f" many modules there {found}); choose another model"
        )
    return next(iter(lists.values()))


def can_checkpoint(blocks: nn.ModuleList) -> bool:
    """Return whether activation checkpointing leaves out hooks, which must not run twice."""
    return all(isinstance(block, GradientCheckpointingLayer) for block in blocks)


class BeforeBlocks:
    """Applies functions to the input states of blocks, by a forward pre-hook on each.

    The hooks do nothing outside `applied`. Activation checkpointing recomputes `forward` of a
    block, without its hooks, from the states that the function returned.
    """

    def __init__(self, blocks: nn.ModuleList) -> None:
        """Register the hooks, once."""
        self._functions: Functions = {}
        for number, block in enumerate(blocks):
            block.register_forward_pre_hook(_Hook(self, number), with_kwargs=True)

    @contextmanager
    def applied(self, functions: Functions) -> Iterator[None]:
        """Apply functions while the body runs."""
        self._functions = functions
        try:
            yield
        finally:
            self._functions = {}

    def apply(self, number: int, states_BTS: torch.Tensor) -> torch.Tensor:
        """Return the states that a block reads."""
        function = self._functions.get(number)
        return states_BTS if function is None else function(states_BTS)


class _Hook:
    """The hook of one block; an object, so that a copied model's hooks refer to the copy."""

    def __init__(self, before: BeforeBlocks, number: int) -> None:
        self.before, self.number = before, number

    def __call__(
        self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the block's arguments, with other states."""
        if args:
            return (self.before.apply(self.number, args[0]), *args[1:]), kwargs
        states_BTS = self.before.apply(self.number, kwargs["hidden_states"])
        return args, kwargs | {"hidden_states": states_BTS}
