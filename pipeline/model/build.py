"""Students to begin with: from a size name, or from pretrained GPT-Neo weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import GPTNeoConfig, GPTNeoModel

from pipeline.errors import InputError
from pipeline.model.configuration import LLMModulesConfig
from pipeline.model.student import LLMModulesForCausalLM

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 128, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "small": {"hidden_size": 384, "num_layers": 6, "num_heads": 6, "attention_types": [[["global", "local"], 3]]},
    "125m": {"hidden_size": 768, "num_layers": 12, "num_heads": 12, "attention_types": [[["global", "local"], 6]]},
}
"""New GPT-Neos by name: `tiny` trains in seconds on a CPU, `125m` has the shape of GPT-Neo-125M."""


def build_student(
    student: str,
    *,
    vocab_size: int,
    longest: int,
    teacher_hidden_size: int,
    teacher_layer: int,
    condition: str,
    cross_attention: str,
    eos_token_id: int,
    pad_token_id: int,
) -> LLMModulesForCausalLM:
    """A student that is ready to train.

    Args:
        student: a size name (new weights), or a hub id or folder of a pretrained GPT-Neo.
        vocab_size: tokens of the teacher's vocabulary.
        longest: tokens of the longest example it is to read.
        teacher_hidden_size: `d_teacher`.
        teacher_layer: the teacher layer that it reads.
        condition: `sequence` or `none`.
        cross_attention: `causal` or `bidirectional`.
        eos_token_id: the token that ends an answer.
        pad_token_id: the token that fills up batches in generation.

    Raises:
        InputError: no such pretrained GPT-Neo, or it cannot hold the longest example.
    """
    pretrained = None if student in SIZES else _pretrained(student)
    body = GPTNeoConfig(**SIZES[student]) if pretrained is None else pretrained.config
    keeps_positions = condition == "none" and pretrained is not None
    if keeps_positions and longest > body.max_position_embeddings:
        raise InputError(
            f"student {student}: has {body.max_position_embeddings} positions, the longest example {longest} tokens; "
            "extract with a smaller --max-tokens"
        )
    body = GPTNeoConfig.from_dict(body.to_dict())
    if not keeps_positions:
        body.max_position_embeddings = max(body.max_position_embeddings, longest)
    body.vocab_size, body.bos_token_id, body.eos_token_id = vocab_size, None, eos_token_id
    config = LLMModulesConfig(
        gpt_neo=body,
        vocab_size=vocab_size,
        condition=condition,
        teacher_hidden_size=teacher_hidden_size,
        teacher_layer=teacher_layer,
        cross_attention=cross_attention,
        adapter_size=max(8, body.hidden_size // 3),
        intermediate_size=(teacher_hidden_size + body.hidden_size) // 2,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
    )
    model = LLMModulesForCausalLM(config)
    if pretrained is not None:
        _take_over_weights(model, pretrained)
    return model


def _pretrained(student: str) -> GPTNeoModel:
    if not Path(student).is_dir() and (student.startswith((".", "/")) or student.count("/") != 1):
        raise InputError(f"student {student}: neither a size ({', '.join(SIZES)}), nor a folder with a GPT-Neo, nor a hub id")
    try:
        return GPTNeoModel.from_pretrained(student, use_safetensors=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"student {student}: no GPT-Neo could be loaded ({reason})") from error


def _take_over_weights(model: LLMModulesForCausalLM, pretrained: GPTNeoModel) -> None:
    """Copy GPT-Neo's blocks and, where the student has them, its positions. Its tokens are not the teacher's."""
    weights = {name: value for name, value in pretrained.state_dict().items() if not name.startswith("wte.")}
    if model.bridge is not None:
        weights.pop("wpe.weight")
    loaded = model.body.load_state_dict(weights, strict=False)
    if loaded.unexpected_keys or {name for name in loaded.missing_keys if not name.startswith("wte.")}:
        raise InputError(f"student: its weights do not fit GPT-Neo ({loaded})")
