"""What a teacher's configuration says of it before any weight is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from pipeline.errors import InputError
from pipeline.pretrained.load import NO_CODE
from pipeline.teacher.layers import layer_indices
from pipeline.teacher.source import TeacherKind

_ATTENTION = {"full_attention", "sliding_attention"}
"""Kinds of layers that need nothing of earlier tokens but keys and values, wherever padding
stands."""
_ROPE_BY_LENGTH = {"dynamic", "longrope"}
"""Rotary embeddings that turn all tokens of a text by how long it is."""
_ORIGINAL = "original_max_position_embeddings"


def decoder_config(config: PreTrainedConfig, kind: TeacherKind = "decoder") -> PreTrainedConfig:
    """The part of a configuration that describes the text decoder, or the text encoder.

    Raises:
        InputError: it does not say how many layers there are, how wide, or over which vocabulary.
    """
    both = kind == "encoder" and config.is_encoder_decoder
    part: PreTrainedConfig = (
        config.get_text_config(encoder=True) if both else config.get_text_config(decoder=True)
    )
    for field in ("num_hidden_layers", "hidden_size", "vocab_size"):
        if not isinstance(getattr(part, field, None), int):
            raise InputError(
                f"teacher: a {config.model_type} configuration has no {field}; it is no {kind} of a"
                " kind known here"
            )
    return part


def context_length(config: PreTrainedConfig, kind: TeacherKind = "decoder") -> int | None:
    """Tokens that a teacher reads; None where its configuration does not say.

    Raises:
        InputError: as `decoder_config`.
    """
    found = getattr(decoder_config(config, kind), "max_position_embeddings", None)
    if found is None or found <= 0:
        return None
    return int(found) - (_unused_positions(config) if kind == "encoder" else 0)


def resolve_layers(layers: Sequence[int], config: PreTrainedConfig) -> dict[int, int]:
    """Each layer asked for with its index counted from the embeddings (0) to the output after the
    final norm.

    Raises:
        InputError: no such layer, or one asked for twice.
    """
    return layer_indices(layers, int(config.num_hidden_layers))


def sharing_obstacle(config: PreTrainedConfig, longest: int = 0) -> str | None:
    """Why a decoder of this architecture cannot go on from the keys and values of tokens read
    before; None where it can.

    Args:
        config: the whole model's.
        longest: tokens of the longest text.
    """
    part = config.get_text_config(decoder=True)
    for each in (config, part):
        kind = MODEL_MAPPING.get(type(each), None)
        for found in kind if isinstance(kind, tuple) else (kind,):
            if getattr(found, "_is_stateful", False):
                return "it keeps a state that is no key-value cache"
    types = {str(layer) for layer in getattr(part, "layer_types", None) or ()}
    if others := sorted(types - _ATTENTION):
        return f"it has layers of the kind {others[0]}"
    limit = length_dependence_limit(config)
    if limit is not None and longest > limit:
        return (
            f"its rotary embeddings depend on the whole length of a text of more than {limit}"
            " tokens"
        )
    return None


def length_dependence_limit(config: PreTrainedConfig) -> int | None:
    """Tokens from which on a text's states depend on how long it is, so that it is read alone;
    None: they never do."""
    part = config.get_text_config(decoder=True)
    rope: Any = getattr(part, "rope_parameters", None) or {}
    for each in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if each.get("rope_type") in _ROPE_BY_LENGTH:
            original = (
                each.get(_ORIGINAL)
                or getattr(part, _ORIGINAL, None)
                or getattr(part, "max_position_embeddings", None)
            )
            return int(original or 0)
    return None


def _unused_positions(config: PreTrainedConfig) -> int:
    """Position embeddings that no token of a text has: RoBERTa and its kin begin after the one of
    padding."""
    try:
        with torch.device("meta"):
            body: nn.Module = AutoModel.from_config(config, **NO_CODE)
    except Exception:  # what cannot be made is refused when it is loaded, in better words
        return 0
    for name, module in body.named_modules():
        if (
            name.endswith("position_embeddings")
            and isinstance(module, nn.Embedding)
            and module.padding_idx is not None
        ):
            return module.padding_idx + 1
    return 0
