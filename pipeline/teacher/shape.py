"""Properties of a teacher that its configuration states, before any weight is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig

from pipeline.errors import InputError
from pipeline.pretrained.kv import kv_obstacle
from pipeline.pretrained.load import NO_CODE
from pipeline.teacher.layers import layer_indices
from pipeline.teacher.source import TeacherKind

_ROPE_BY_LENGTH = {"dynamic", "longrope"}
"""Rotary embeddings that depend on the length of the whole text."""
_ORIGINAL = "original_max_position_embeddings"


def decoder_config(config: PreTrainedConfig, kind: TeacherKind = "decoder") -> PreTrainedConfig:
    """Return the part of a configuration that describes the text decoder or encoder.

    Raises:
        InputError: it lacks the number of layers, their width, or the vocabulary's size.
    """
    both = kind == "encoder" and config.is_encoder_decoder
    part: PreTrainedConfig = (
        config.get_text_config(encoder=True) if both else config.get_text_config(decoder=True)
    )
    for field in ("num_hidden_layers", "hidden_size", "vocab_size"):
        if not isinstance(getattr(part, field, None), int):
            raise InputError(
                f"teacher: the {config.model_type} configuration has no {field}; choose another"
                f" {kind}"
            )
    return part


def context_length(config: PreTrainedConfig, kind: TeacherKind = "decoder") -> int | None:
    """Return the longest text in tokens, or None if the configuration does not limit it.

    Raises:
        InputError: as `decoder_config`.
    """
    positions = getattr(decoder_config(config, kind), "max_position_embeddings", None)
    if positions is None or positions <= 0:
        return None
    return int(positions) - (_unused_positions(config) if kind == "encoder" else 0)


def resolve_layers(layers: Sequence[int], config: PreTrainedConfig) -> dict[int, int]:
    """Return the index of each layer, counted from the embeddings.

    Raises:
        InputError: a layer does not exist, or is repeated.
    """
    return layer_indices(layers, int(config.num_hidden_layers))


def sharing_obstacle(config: PreTrainedConfig, longest: int = 0) -> str | None:
    """Return why a decoder cannot continue from the keys and values of a prefix, None if it can.

    Args:
        config: of the whole model.
        longest: length of the longest text in tokens.
    """
    if (obstacle := kv_obstacle(config)) is not None:
        return obstacle
    limit = length_dependence_limit(config)
    if limit is not None and longest > limit:
        return f"its rotary embeddings depend on the length of texts of more than {limit} tokens"
    return None


def length_dependence_limit(config: PreTrainedConfig) -> int | None:
    """Return the length above which states depend on a text's length, or None if they never do."""
    part = config.get_text_config(decoder=True)
    rope: Any = getattr(part, "rope_parameters", None) or {}
    for parameters in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if parameters.get("rope_type") in _ROPE_BY_LENGTH:
            original = (
                parameters.get(_ORIGINAL)
                or getattr(part, _ORIGINAL, None)
                or getattr(part, "max_position_embeddings", None)
            )
            return int(original or 0)
    return None


def _unused_positions(config: PreTrainedConfig) -> int:
    """Return the number of unused position embeddings: RoBERTa's begin after the padding's."""
    try:
        with torch.device("meta"):
            body: nn.Module = AutoModel.from_config(config, **NO_CODE)
    except Exception:  # loading it will fail with a better message
        return 0
    for name, module in body.named_modules():
        if (
            name.endswith("position_embeddings")
            and isinstance(module, nn.Embedding)
            and module.padding_idx is not None
        ):
            return module.padding_idx + 1
    return 0
