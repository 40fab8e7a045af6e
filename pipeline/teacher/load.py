"""Loading a teacher's weights, or making random ones in their place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForTextEncoding,
    GgufConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

from pipeline.device import DTYPES, DtypeName
from pipeline.errors import InputError
from pipeline.pretrained.load import NO_CODE, load_error_reason, load_weights
from pipeline.teacher.gguf_tensors import require_all_tensors_used
from pipeline.teacher.model import Teacher
from pipeline.teacher.source import TeacherSource

_MOST_DIVERGENCE = 0.01
"""Nats a token between the LM head's own predictions and the whole model's: bfloat16's rounding
gives a few 1e-4."""


def load_teacher(
    source: TeacherSource,
    layers: Sequence[int],
    device: torch.device,
    dtype: DtypeName,
    *,
    with_lm_head: bool = False,
) -> Teacher:
    """Load a teacher's body, frozen; its LM head only where that is asked for.

    Raises:
        InputError: the weights cannot be had, or have no such layer.
    """
    if with_lm_head:
        return teacher_from_causal_lm(load_causal_lm(source, device, dtype), layers)
    return Teacher(load_base_model(source, device, dtype), layers, kind=source.kind)


def load_base_model(
    source: TeacherSource, device: torch.device, dtype: DtypeName
) -> PreTrainedModel:
    """The teacher's body as transformers has it; of a model of encoder and decoder that is named as
    an encoder, its encoder.

    Raises:
        InputError: the weights cannot be had.
    """
    body = _loaded(_body_class(source), source, dtype)
    if source.kind == "encoder" and body.config.is_encoder_decoder and hasattr(body, "get_encoder"):
        body = body.get_encoder()
    found: PreTrainedModel = body.to(device).eval().requires_grad_(False)
    return found


def teacher_from_causal_lm(whole: Any, layers: Sequence[int]) -> Teacher:
    """The body and the LM head of a whole model.

    Raises:
        InputError: it has no such layer, or does more than its LM head to predict.
    """
    ids_BT = torch.tensor([[1, 2, 3, 4]], device=whole.device)
    with torch.inference_mode():
        predicted_TV = whole(input_ids=ids_BT).logits[0].float().log_softmax(dim=-1)
    teacher = Teacher(whole.base_model, layers, whole.get_output_embeddings())
    _require_plain_head(teacher, ids_BT, predicted_TV)
    return teacher


def load_causal_lm(
    source: TeacherSource, device: torch.device, dtype: DtypeName
) -> PreTrainedModel:
    """The teacher as transformers has it, with its LM head, frozen: to write by itself.

    Raises:
        InputError: the weights cannot be had.
    """
    whole: PreTrainedModel = _loaded(AutoModelForCausalLM, source, dtype).to(device)
    whole.eval().requires_grad_(False)
    return whole


def _loaded(kind: Any, source: TeacherSource, dtype: DtypeName) -> Any:
    """The model of an Auto class, its weights loaded or, where these are to be random, made."""
    try:
        if source.random_seed is not None:
            with torch.random.fork_rng():
                torch.manual_seed(source.random_seed)
                return kind.from_config(source.load_config(), **NO_CODE).to(DTYPES[dtype])
        if not source.is_gguf:
            return load_weights(kind, source.location, dtype=DTYPES[dtype], **source.options)
        # A GGUF file's blocks are unpacked once: left packed, every forward pass would unpack them
        # anew.
        how = {"quantization_config": GgufConfig(dequantize=True), "use_safetensors": None}
        model = load_weights(kind, source.location, dtype=DTYPES[dtype], **how, **source.options)
        require_all_tensors_used(Path(source.name), model)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"teacher {source.name}: its weights cannot be loaded ({load_error_reason(error)})"
        ) from error
    return model


def _require_plain_head(teacher: Teacher, ids_BT: torch.Tensor, predicted_TV: torch.Tensor) -> None:
    """Hold what the LM head gives by itself against the whole model: some scale their logits in
    ways of their own."""
    last = next((layer for layer in teacher.layers if teacher.is_last(layer)), None)
    if last is None or not teacher.has_lm_head:
        return
    found_TV = teacher.log_probabilities(teacher.hidden_states(ids_BT)[last][0].float())
    if (
        float((predicted_TV.exp() * (predicted_TV - found_TV)).sum(dim=-1).mean())
        > _MOST_DIVERGENCE
    ):
        family = type(teacher.body).__name__
        raise InputError(
            f"teacher {family}: does more than its LM head to predict, so that cannot be told from"
            " its states; use --fidelity rel=…, and neither --keep-head nor the baseline teacher"
        )


def _body_class(source: TeacherSource) -> Any:
    """A model of encoder and decoder gives its encoder alone, where transformers loads that by
    itself."""
    if source.kind == "decoder":
        return AutoModel
    config = source.load_config()
    return (
        AutoModelForTextEncoding
        if config.is_encoder_decoder and type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING
        else AutoModel
    )
