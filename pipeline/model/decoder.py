"""The configuration of a student's decoder, and what it must be."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, GPTNeoConfig, PreTrainedConfig

from pipeline.conditions.registry import condition_named
from pipeline.errors import InputError
from pipeline.model.configuration import LLMModulesConfig, positions_of
from pipeline.pretrained.kv import kv_obstacle
from pipeline.pretrained.source import find_model
from pipeline.shapes import SIZES, Body

_POSITIONS = 2048


@dataclass
class _Shape:
    hidden_size: int
    num_layers: int


def body_shape(decoder: PreTrainedConfig) -> Body:
    """Return the sizes of a decoder that its bridge depends on."""
    return _Shape(int(decoder.hidden_size), int(decoder.num_hidden_layers))


def student_body(student: str, condition: str, longest: int) -> PreTrainedConfig:
    """Return the configuration of a student's decoder, with positions for the longest example.

    A pretrained GPT-Neo gets more positions unless it reads its own tokens. Other families have
    those of their configuration.

    Args:
        student: as on the command line.
        condition: what the student reads.
        longest: number of positions that the longest example takes.

    Raises:
        InputError: there is no such decoder, the student cannot be built on it, or it has too few
            positions.
    """
    if student in SIZES:
        return GPTNeoConfig(**SIZES[student], max_position_embeddings=max(longest, _POSITIONS))
    decoder = _pretrained_decoder(student)
    limit = positions_of(decoder)
    if limit is None or longest <= limit:
        return decoder
    own_tokens = condition_named(condition).own_tokens
    if not own_tokens and isinstance(decoder, GPTNeoConfig):
        decoder.max_position_embeddings = longest
        return decoder
    advice = (
        "leave longer answers out with --max-answer-tokens"
        if own_tokens
        else "extract again with a smaller --max-tokens"
    )
    raise InputError(
        f"student {student}: has {limit} positions, the longest example {longest} tokens; {advice}"
    )


def _pretrained_decoder(student: str) -> PreTrainedConfig:
    """Return the text decoder of a pretrained model's configuration.

    Raises:
        InputError: there is no such model, or it is no decoder that a student can be built on.
    """
    config = find_model("student", student, tuple(SIZES)).load_config()
    if isinstance(config, LLMModulesConfig):
        if config.reads_states or config.head_size is not None:
            raise InputError(
                f"student {student}: reads a teacher, or its LM head spans only some tokens; name a"
                " pretrained model, or a student of train --condition text --vocab whole"
            )
        config.body.tie_word_embeddings = config.tie_word_embeddings
        return config.body
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or config.is_encoder_decoder:
        raise InputError(
            f"student {student}: is a {config.model_type}, not a causal LM of transformers; name"
            f" one, or a size ({', '.join(SIZES)})"
        )
    if (obstacle := kv_obstacle(config)) is not None:
        raise InputError(
            f"student {student}: is a {config.model_type}, and {obstacle}; name a model of"
            " attention layers only"
        )
    decoder: PreTrainedConfig = config.get_text_config(decoder=True)
    decoder.tie_word_embeddings = config.tie_word_embeddings
    return decoder
