"""Initialise cross-attention with the self-attention of the block that it precedes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from pipeline.errors import InputError
from pipeline.model.blocks import find_blocks
from pipeline.model.cross_attention import EnhancedCrossAttention
from pipeline.model.student import LLMModulesForCausalLM

_QUERY, _KEY, _VALUE = ("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")
_OUTPUT = ("o_proj", "out_proj", "dense", "c_proj")
_FUSED = "c_attn"
"""GPT-2's query, key and value, in this order, as one layer."""


@dataclass(frozen=True)
class _Projection:
    """A linear layer: weight `[outputs, inputs]` and bias `[outputs]`."""

    weight: torch.Tensor
    bias: torch.Tensor


def init_from_self_attention(model: LLMModulesForCausalLM) -> None:
    """Copy the self-attention of blocks into the cross-attention layers that precede them.

    Query and output are copied. Key and value are, too, behind a random semi-orthogonal map from
    the teacher's width to the student's (the identity if they are equal); where several heads share
    a key, each gets a copy. Positions and norms of queries and keys are not copied.

    Raises:
        InputError: the layers have another number of heads, or the attention of a block is not
            found.
    """
    config = model.config
    assert config.cross_blocks is not None
    heads = int(config.body.num_attention_heads)
    if config.cross_heads != heads:
        raise InputError(
            f"--cross-init self: the student's self-attention has {heads} heads; pass --cross-heads"
            f" {heads}"
        )
    blocks = find_blocks(model.body, config.blocks)
    to_student_SD = torch.empty(config.hidden_size, config.teacher_hidden_size)
    nn.init.orthogonal_(to_student_SD)
    if config.teacher_hidden_size == config.hidden_size:
        nn.init.eye_(to_student_SD)
    unscaled = config.body.model_type == "gpt_neo"
    for number, layer in zip(config.cross_blocks, model.bridge.layers, strict=True):
        query, key, value, output = _projections(blocks[number], config.hidden_size)
        # GPT-Neo does not divide by the square root of a head's width
        scale = (config.hidden_size / heads) ** 0.5 if unscaled else 1.0
        _copy(layer.query, _Projection(query.weight * scale, query.bias * scale))
        _copy(layer.output, output)
        for own, shared in ((layer.key, key), (layer.value, value)):
            repeated = _repeated(shared, heads, layer)
            _copy(own, _Projection(repeated.weight @ to_student_SD, repeated.bias))


def _projections(block: nn.Module, size: int) -> list[_Projection]:
    """Return query, key, value and output of a block's self-attention.

    Raises:
        InputError: they are not found by name, or are not as wide as the student.
    """
    for attention in block.modules():
        children = dict(attention.named_children())
        if _FUSED in children and "c_proj" in children:
            fused = _read(children[_FUSED])
            parts = zip(fused.weight.chunk(3), fused.bias.chunk(3), strict=True)
            found = [_Projection(*part) for part in parts] + [_read(children["c_proj"])]
        else:
            named = [
                next((children[name] for name in names if name in children), None)
                for names in (_QUERY, _KEY, _VALUE, _OUTPUT)
            ]
            if not all(isinstance(layer, (nn.Linear, Conv1D)) for layer in named):
                continue
            found = [_read(layer) for layer in named if layer is not None]
        if found[0].weight.shape == found[3].weight.shape == (size, size):
            return found
    raise InputError(
        f"--cross-init self: no query, key, value and output of the student's width found in"
        f" {type(block).__name__}; omit it"
    )


def _read(layer: nn.Module) -> _Projection:
    """Return the weights of a linear layer; one without bias has a bias of zero."""
    assert isinstance(layer.weight, torch.Tensor)
    weight = layer.weight.detach()
    weight = weight.T if isinstance(layer, Conv1D) else weight
    bias = getattr(layer, "bias", None)
    return _Projection(weight, weight.new_zeros(len(weight)) if bias is None else bias.detach())


def _repeated(shared: _Projection, heads: int, layer: EnhancedCrossAttention) -> _Projection:
    """Return keys or values with one copy per head of those that several heads share."""
    width = layer.query.out_features // heads
    times = heads * width // len(shared.weight)
    of_heads_HCS = shared.weight.unflatten(0, (-1, width)).repeat_interleave(times, 0)
    bias_HC = shared.bias.unflatten(0, (-1, width)).repeat_interleave(times, 0)
    return _Projection(of_heads_HCS.flatten(0, 1), bias_HC.flatten())


@torch.no_grad()
def _copy(layer: nn.Linear, projection: _Projection) -> None:
    layer.weight.copy_(projection.weight)
    layer.bias.copy_(projection.bias)
