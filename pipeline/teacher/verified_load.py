"""The teacher that a cache was made with, and no other."""

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
    """Which of a cache's layers its teacher's LM head reads; None where none of them is.

    Raises:
        InputError: the teacher's configuration is not to be had.
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
    """Load the teacher that a cache was made with, from wherever it lies now.

    Raises:
        InputError: it is not there, or its weights are others.
    """
    return load_teacher(
        _same_source(name, identity), layers, device, _dtype(identity), with_lm_head=with_lm_head
    )


def load_verified_base_model(
    name: str, identity: dict[str, Any], device: torch.device
) -> PreTrainedModel:
    """Load its body as transformers has it, and nothing of this project around it.

    Raises:
        InputError: as `load_verified_teacher`.
    """
    return load_base_model(_same_source(name, identity), device, _dtype(identity))


def load_verified_causal_lm(
    name: str, identity: dict[str, Any], device: torch.device
) -> PreTrainedModel:
    """Load it as transformers has it, to write by itself.

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
    found = {
        "teacher_weights": source.weights_hash(),
        "teacher_config": config_hash(source.load_config()),
    }
    for field, value in found.items():
        if value != identity[field]:
            raise InputError(
                f"teacher {name}: {field} is {value!r}, the cache was made with"
                f" {identity[field]!r}; name the same teacher with --teacher"
            )
    return source
