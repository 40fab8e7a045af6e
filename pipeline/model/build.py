"""Build untrained students, with new weights or those of a pretrained GPT-Neo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GPTNeoConfig

from pipeline.conditions.registry import condition_named
from pipeline.errors import InputError
from pipeline.model.configuration import LLMModulesConfig
from pipeline.model.student import LLMModulesForCausalLM
from pipeline.pretrained.load import load_config, load_error_reason, load_weights
from pipeline.shapes import SIZES, BridgeShape

_POSITIONS = 2048


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
) -> LLMModulesForCausalLM:
    """Return an untrained student.

    Args:
        student: a size name (new weights), or a hub id or folder of a pretrained GPT-Neo or of a
            student without a teacher.
        new_weights: use only the shape of a pretrained GPT-Neo.
        vocab_size: size of the teacher's vocabulary; with `prompt` and `text`, of the student's.
        longest: number of tokens of the longest example.
        teacher_hidden_size: `d_teacher`.
        condition: as in `LLMModulesConfig`.
        bos_token_id, eos_token_id: begin (with `prompt`) and end an answer.
        pad_token_id: pads batches in generation.
        bridge: shape of its bridge; None: as in the paper.
        head_tokens: tokens that the LM head spans, ascending; None: the whole vocabulary.

    Raises:
        InputError: there is no such pretrained GPT-Neo, it has too few positions for the longest
            example, or the bridge cannot be built.
    """
    bridge = bridge or BridgeShape()
    body = student_body(student, condition, longest)
    conditioning = condition_named(condition)
    conditioning.require_bridge(bridge, body)
    own_tokens = conditioning.own_tokens
    if own_tokens and student not in SIZES:
        if vocab_size > body.vocab_size:
            raise InputError(
                f"student {student}: has {body.vocab_size} tokens, its tokenizer {vocab_size};"
                " see --student-tokenizer"
            )
        vocab_size = body.vocab_size
    body.vocab_size, body.bos_token_id, body.eos_token_id = vocab_size, None, eos_token_id
    layers = bridge.teacher_layers
    cross_layers = conditioning.cross_layers(bridge, body.num_layers)
    config = LLMModulesConfig(
        gpt_neo=body,
        vocab_size=vocab_size,
        head_size=None if head_tokens is None else len(head_tokens),
        condition=condition,
        teacher_hidden_size=teacher_hidden_size,
        teacher_layers=layers,
        reads=[layers.index(layer) for layer in bridge.layers]
        * (cross_layers if len(bridge.layers) == 1 else 1),
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
    if student not in SIZES and not new_weights:
        copy_weights = _copy_all if own_tokens else _copy_blocks
        copy_weights(model, student)
    return model


def student_body(student: str, condition: str, longest: int) -> GPTNeoConfig:
    """Return the configuration of a student's GPT-Neo, with positions for the longest example.

    A pretrained one that reads its own tokens keeps its learned positions, and gets no more.

    Raises:
        InputError: there is no such GPT-Neo, or it has too few positions.
    """
    if student in SIZES:
        return GPTNeoConfig(**SIZES[student], max_position_embeddings=max(longest, _POSITIONS))
    if not Path(student).is_dir() and (student.startswith((".", "/")) or student.count("/") != 1):
        raise InputError(
            f"student {student}: neither a size ({', '.join(SIZES)}), nor a folder with a GPT-Neo,"
            " nor a hub id"
        )
    try:
        body = load_config(student)
    except Exception as error:
        problem = (
            "its configuration cannot be read"
            if Path(student).is_dir()
            else "no such folder, and no such model on the hub"
        )
        raise InputError(f"student {student}: {problem} ({load_error_reason(error)})") from error
    if isinstance(body, LLMModulesConfig):
        if body.reads_states or body.head_size is not None:
            raise InputError(
                f"student {student}: reads a teacher, or its LM head spans only some tokens; name a"
                " GPT-Neo, or a student of train --condition text --vocab whole"
            )
        tied = body.tie_word_embeddings
        body = body.body
        body.tie_word_embeddings = tied
    if not isinstance(body, GPTNeoConfig):
        raise InputError(
            f"student {student}: is a {body.model_type}, not a GPT-Neo; name a GPT-Neo, or a size"
            f" ({', '.join(SIZES)})"
        )
    if condition_named(condition).own_tokens and longest > body.max_position_embeddings:
        raise InputError(
            f"student {student}: has {body.max_position_embeddings} positions, the longest example"
            f" {longest} tokens; leave longer answers out with --max-answer-tokens"
        )
    body.max_position_embeddings = max(body.max_position_embeddings, longest)
    return body


def _copy_all(model: LLMModulesForCausalLM, student: str) -> None:
    """Copy a whole GPT-Neo: embeddings, positions, blocks, and the LM head's rows."""
    body, head = _pretrained(student)
    model.body.load_state_dict(body)
    with torch.no_grad():
        model.lm_head.weight.copy_(head if model.head_tokens is None else head[model.head_tokens])


def _pretrained(student: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return the weights of a GPT-Neo's body, and of its LM head."""
    try:
        model = load_weights(AutoModelForCausalLM, student)
    except Exception as error:
        raise InputError(
            f"student {student}: its weights could not be loaded ({load_error_reason(error)})"
        ) from error
    return model.base_model.state_dict(), model.get_output_embeddings().weight.detach()


def _copy_blocks(model: LLMModulesForCausalLM, student: str) -> None:
    """Copy GPT-Neo's blocks and positions, not its embeddings, which are of other tokens."""
    weights = {
        name: value
        for name, value in _pretrained(student)[0].items()
        if not name.startswith("wte.")
    }
    positions_PS = weights.pop("wpe.weight")
    loaded = model.body.load_state_dict(weights, strict=False)
    if loaded.unexpected_keys or {
        name for name in loaded.missing_keys if not name.startswith(("wte.", "wpe."))
    }:
        raise InputError(
            f"student {student}: its weights do not fit GPT-Neo ({loaded}); name another"
        )
    if not model.bridge.replaces_embeddings:
        with torch.no_grad():
            model.body.wpe.weight[: len(positions_PS)].copy_(positions_PS)
