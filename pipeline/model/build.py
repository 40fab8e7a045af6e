"""Build untrained students, with new weights or those of a pretrained decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipeline.conditions.registry import condition_named
from pipeline.errors import InputError
from pipeline.model.body import causality_problem
from pipeline.model.configuration import LLMModulesConfig
from pipeline.model.decoder import body_shape, student_body
from pipeline.model.student import LLMModulesForCausalLM
from pipeline.model.weights import copy_all, copy_blocks
from pipeline.pretrained.source import find_model
from pipeline.shapes import SIZES, BridgeShape


def build_student(
    student: str,
    *,
    new_weights: bool = False,
    vocab_size: int,
    longest: int,
    teacher_hidden_size: int,
    condition: str,
    eos_token_id: int,
    pad_token_id: int,
    bos_token_id: int | None = None,
    bridge: BridgeShape | None = None,
    head_tokens: Sequence[int] | None = None,
    embedded_tokens: Sequence[int] | None = None,
) -> LLMModulesForCausalLM:
    """Return an untrained student.

    Args:
        student: a size name (a GPT-Neo with new weights), or a hub id, folder or GGUF file of a
            pretrained decoder or of a student without a teacher.
        new_weights: use only the shape of a pretrained decoder.
        vocab_size: size of the teacher's vocabulary; with `prompt` and `text`, of the student's.
        longest: number of positions that the longest example takes.
        teacher_hidden_size: `d_teacher`.
        condition: as in `LLMModulesConfig`.
        bos_token_id, eos_token_id: begin (with `prompt`) and end an answer.
        pad_token_id: pads batches in generation.
        bridge: shape of its bridge; None: as in the paper.
        head_tokens: tokens that the LM head spans, ascending; None: the whole vocabulary.
        embedded_tokens: tokens with an embedding of their own, ascending, for new weights only;
            None: the whole vocabulary.

    Raises:
        InputError: there is no such pretrained decoder, it has too few positions for the longest
            example, it does not predict by an LM head alone, or the bridge cannot be built.
    """
    bridge = bridge or BridgeShape()
    body = student_body(student, condition, longest)
    conditioning = condition_named(condition)
    conditioning.require_bridge(bridge, body_shape(body))
    own_tokens = conditioning.own_tokens
    if own_tokens and student not in SIZES:
        if vocab_size > body.vocab_size:
            raise InputError(
                f"student {student}: has {body.vocab_size} tokens, its tokenizer {vocab_size};"
                " see --student-tokenizer"
            )
        vocab_size = body.vocab_size
    body.vocab_size, body.bos_token_id, body.eos_token_id = vocab_size, None, eos_token_id
    if embedded_tokens is not None:
        body.vocab_size = len(embedded_tokens) + 1
    if not own_tokens or embedded_tokens is not None:
        body.pad_token_id = None  # of other tokens
    cross_layers = conditioning.cross_layers(bridge, body.num_hidden_layers)
    config = LLMModulesConfig(
        decoder=body,
        vocab_size=vocab_size,
        head_size=None if head_tokens is None else len(head_tokens),
        embedded_size=None if embedded_tokens is None else len(embedded_tokens),
        condition=condition,
        teacher_hidden_size=teacher_hidden_size,
        teacher_layers=bridge.teacher_layers,
        reads=_reads(bridge, cross_layers),
        mix_layers=bridge.mix_layers,
        standardise=conditioning.reads_prompt_states,
        states_dropout=bridge.states_dropout,
        prompt_text=bridge.prompt_text,
        join=bridge.join,
        cross_attention=bridge.cross_attention,
        cross_layers=cross_layers,
        cross_every=bridge.cross_every,
        cross_heads=bridge.cross_heads,
        gate=bridge.gate,
        adapter_size=bridge.adapter_size or max(8, body.hidden_size // 3),
        intermediate_size=(teacher_hidden_size + body.hidden_size) // 2,
        bos_token_id=bos_token_id,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        tie_word_embeddings=own_tokens and head_tokens is None and bool(body.tie_word_embeddings),
    )
    model = LLMModulesForCausalLM(config)
    if head_tokens is not None:
        model.head_tokens = torch.tensor(head_tokens)
    if embedded_tokens is not None:
        model.embedded_tokens = torch.tensor(embedded_tokens)
    if student not in SIZES and (
        problem := causality_problem(
            model.body, replaces_embeddings=model.bridge.replaces_embeddings
        )
    ):
        raise InputError(
            f"student {student}: --condition {condition} cannot be trained on it: {problem}; name"
            " another model"
        )
    if student not in SIZES and not new_weights:
        copy_weights = copy_all if own_tokens else copy_blocks
        copy_weights(model, find_model("student", student))
    return model


def _reads(bridge: BridgeShape, cross_layers: int) -> list[int]:
    """Return the index of the layer that each cross-attention layer reads."""
    if bridge.mix_layers or len(bridge.layers) == 1:
        return [0] * cross_layers
    return [bridge.teacher_layers.index(layer) for layer in bridge.layers][:cross_layers]
