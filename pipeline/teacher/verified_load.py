"""Loading of a cache's teacher, verified by its recorded weights and configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from pipeline.device import DtypeName
from pipeline.errors import InputError
from pipeline.teacher.load import load_base_model, load_causal_lm, load_teacher
from pipeline.teacher.model import Teacher
from pipeline.teacher.shape import decoder_config, resolve_layers
from pipeline.teacher.source import TeacherSource, config_hash, find_teacher


def lm_head_layer(name: str, layers: Sequence[int], identity: dict[str, Any]) -> int | None:
    """Return the cached layer that the teacher's LM head reads, or None.

    Raises:
        InputError: the teacher's configuration cannot be loaded.
    """
    if identity.get("teacher_kind") == "encoder" or -1 in layers:
        return None if identity.get("teacher_kind") == "encoder" else -1
    shape = decoder_config(find_teacher(name).load_config())
    indices = resolve_layers(layers, shape)
    return next(
        (layer for layer, index in indices.items() if index == int(shape.num_hidden_layers)), None
    )


def load_verified_teacher(
    name: str,
    layers: list[int],
    identity: dict[str, Any],
    device: torch.device,
    *,
    with_lm_head: bool = False,
) -> Teacher:
    """Load the teacher of a cache, from `name`, its current location.

    Raises:
        InputError: it is missing, or its weights or configuration differ.
    """
    return load_teacher(
        _same_source(name, identity), layers, device, _dtype(identity), with_lm_head=with_lm_head
    )


def load_verified_base_model(
    name: str, identity: dict[str, Any], device: torch.device
) -> PreTrainedModel:
    """Load the base model of a cache's teacher, without this project's wrapper.

    Raises:
        InputError: as `load_verified_teacher`.
    """
    return load_base_model(_same_source(name, identity), device, _dtype(identity))


def load_verified_causal_lm(
    name: str, identity: dict[str, Any], device: torch.device
) -> PreTrainedModel:
    """Load the teacher of a cache as a causal LM, to generate by itself.

    Raises:
        InputError: as `load_verified_teacher`.
    """
    return load_causal_lm(_same_source(name, identity), device, _dtype(identity))


def _dtype(identity: dict[str, Any]) -> DtypeName:
    return "bf16" if identity["compute_dtype"] == "bf16" else "fp32"


def _same_source(name: str, identity: dict[str, Any]) -> TeacherSource:
    try:
        source = find_teacher(name, identity.get("teacher_kind", "decoder")).pinned()
    except InputError as error:
        raise InputError(f"{error}; if it has moved, name it with --teacher") from error
    current = {
        "teacher_weights": source.weights_hash(),
        "teacher_config": config_hash(source.load_config()),
    }
    for field, value in current.items():
        if value != identity[field]:
            raise InputError(
                f"teacher {name}: {field} is {value!r}, but the cache has {identity[field]!r}; name"
                " the cache's teacher with --teacher"
            )
    return source
