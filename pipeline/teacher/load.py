"""Loading of a teacher's weights, or random initialisation in their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForTextEncoding,
    PreTrainedModel,
)

from pipeline.device import DTYPES, DtypeName
from pipeline.errors import InputError
from pipeline.loaded_teachers import register_teacher
from pipeline.pretrained.load import NO_CODE, load_error_reason, load_model
from pipeline.teacher.model import Teacher
from pipeline.teacher.source import TeacherSource

_MAX_DIVERGENCE = 0.01
"""Between predictions of LM head and whole model, in nats per token; bf16 causes a few 1e-4."""


def load_teacher(
    source: TeacherSource,
    layers: Sequence[int],
    device: torch.device,
    dtype: DtypeName,
    *,
    with_lm_head: bool = False,
) -> Teacher:
    """Load a frozen teacher, by default without its LM head.

    Raises:
        InputError: the weights cannot be loaded, or lack a layer.
    """
    if with_lm_head:
        return teacher_from_causal_lm(load_causal_lm(source, device, dtype), layers)
    return Teacher(load_base_model(source, device, dtype), layers, kind=source.kind)


def load_base_model(
    source: TeacherSource, device: torch.device, dtype: DtypeName
) -> PreTrainedModel:
    """Load the teacher's base model, frozen; of an encoder-decoder used as encoder, its encoder.

    Raises:
        InputError: the weights cannot be loaded.
    """
    body = _loaded(_base_model_class(source), source, dtype)
    if source.kind == "encoder" and body.config.is_encoder_decoder and hasattr(body, "get_encoder"):
        body = body.get_encoder()
    base_model: PreTrainedModel = body.to(device).eval().requires_grad_(False)
    return base_model


def teacher_from_causal_lm(whole: Any, layers: Sequence[int]) -> Teacher:
    """Return base model and LM head of a whole model as a teacher.

    Raises:
        InputError: it lacks a layer, or its predictions take more than the LM head.
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
    """Load the teacher as a frozen causal LM, to generate by itself.

    Raises:
        InputError: the weights cannot be loaded.
    """
    whole: PreTrainedModel = _loaded(AutoModelForCausalLM, source, dtype).to(device)
    whole.eval().requires_grad_(False)
    return whole


def _loaded(kind: Any, source: TeacherSource, dtype: DtypeName) -> Any:
    """Return a model of an Auto class, with loaded or random weights."""
    try:
        if source.random_seed is not None:
            with torch.random.fork_rng():
                torch.manual_seed(source.random_seed)
                model = kind.from_config(source.load_config(), **NO_CODE).to(DTYPES[dtype])
        else:
            model = load_model(kind, source, dtype=DTYPES[dtype])
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"teacher {source.name}: the weights cannot be loaded ({load_error_reason(error)})"
        ) from error
    register_teacher(model)
    return model


def _require_plain_head(teacher: Teacher, ids_BT: torch.Tensor, predicted_TV: torch.Tensor) -> None:
    """Refuse a model whose predictions are not those of its LM head, such as with scaled logits."""
    last = next((layer for layer in teacher.layers if teacher.is_last(layer)), None)
    if last is None or not teacher.has_lm_head:
        return
    head_TV = teacher.log_probabilities(teacher.hidden_states(ids_BT)[last][0].float())
    divergence = (predicted_TV.exp() * (predicted_TV - head_TV)).sum(dim=-1).mean()
    if float(divergence) > _MAX_DIVERGENCE:
        raise InputError(
            f"teacher {type(teacher.body).__name__}: its predictions do not follow from hidden"
            " states and LM head alone; use --fidelity rel=…, and neither --keep-head nor the"
            " baseline teacher"
        )


def _base_model_class(source: TeacherSource) -> Any:
    """Return the Auto class, which loads only the encoder of an encoder-decoder if possible."""
    if source.kind == "decoder":
        return AutoModel
    config = source.load_config()
    return (
        AutoModelForTextEncoding
        if config.is_encoder_decoder and type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING
        else AutoModel
    )
