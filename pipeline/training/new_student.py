"""An untrained student for a run, and its optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import AdamW
from transformers import PreTrainedTokenizerBase

from cache import Cache, CacheError
from pipeline.batches.examples import CachedExamples
from pipeline.choices import Part
from pipeline.data.student_tokens import begin_token
from pipeline.data.vocabulary import VOCABULARY, read_vocabulary
from pipeline.errors import InputError
from pipeline.model import LLMModulesForCausalLM, build_student, init_from_self_attention
from pipeline.runs.examples import positions_needed
from pipeline.runs.settings import TrainSettings
from pipeline.training.adapters import add_adapters, freeze_decoder
from pipeline.training.head_init import init_head

_MIX_RATE = 10
"""Learning rate of the weights of mixed layers, in those of the bridge."""


def new_student(
    settings: TrainSettings,
    cache: Cache,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[CachedExamples],
) -> LLMModulesForCausalLM:
    """Return an untrained student for a run, with frozen parts as its settings say.

    Args:
        settings: of the run.
        cache: to train from.
        tokenizer: the student's.
        examples: the data sets that the student will read.

    Raises:
        InputError: there is no such student, or the cache lacks a vocabulary or LM head for it.
    """
    own_tokens, pad = settings.own_tokens, tokenizer.pad_token_id
    end = int(tokenizer.eos_token_id) if own_tokens else cache.manifest.end_token_id
    model = build_student(
        settings.student,
        new_weights=settings.new_weights,
        vocab_size=len(tokenizer) if own_tokens else cache.manifest.vocab_size,
        longest=positions_needed(examples) if own_tokens else int(cache.lengths.max()),
        teacher_hidden_size=cache.hidden_size,
        condition=settings.condition,
        bridge=settings,
        bos_token_id=begin_token(tokenizer) if own_tokens else None,
        eos_token_id=end,
        pad_token_id=pad if isinstance(pad, int) else end,
        head_tokens=(
            _in_dataset(cache, [dataset.occurring for dataset in examples])
            if settings.vocab == "dataset"
            else None
        ),
        embedded_tokens=(
            _in_dataset(cache, [dataset.read_tokens for dataset in examples])
            if settings.embeds_dataset
            else None
        ),
    )
    if settings.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise InputError(
            f"--gradient-checkpointing: transformers does not support it for student"
            f" {settings.student}; omit it"
        )
    model.config.use_cache = False  # no key-value cache in training; generation turns it on
    if settings.head_init == "teacher":
        init_head(model, cache, settings)
    if settings.cross_init == "self":
        init_from_self_attention(model)
    for part in settings.freeze:
        _freeze(model, part)
    if settings.lora is not None:
        add_adapters(model, settings.lora)
    return model


def build_optimizer(
    model: LLMModulesForCausalLM, *, bridge_lr: float, student_lr: float, weight_decay: float
) -> AdamW:
    """Return AdamW with one learning rate for the decoder and one for bridge and new LM head.

    The few weights of mixed layers have a larger rate, and no decay towards equal ones.
    """
    own = ("body.", "lm_head.") if model.config.keeps_head else ("body.",)
    bridge: list[nn.Parameter] = []
    decoder: list[nn.Parameter] = []
    mix: list[nn.Parameter] = []
    for name, weights in model.named_parameters():
        if weights.requires_grad:
            group = mix if name == "bridge.mix" else decoder if name.startswith(own) else bridge
            group.append(weights)
    groups: list[dict[str, Any]] = [
        {"params": bridge, "lr": bridge_lr},
        {"params": decoder, "lr": student_lr},
        {"params": mix, "lr": _MIX_RATE * bridge_lr, "weight_decay": 0.0},
    ]
    return AdamW(
        [group for group in groups if group["params"]], lr=bridge_lr, weight_decay=weight_decay
    )


def _freeze(model: LLMModulesForCausalLM, part: Part) -> None:
    parts: dict[Part, nn.Module] = {"bridge": model.bridge, "head": model.lm_head}
    if part == "student":
        freeze_decoder(model)
    else:
        parts[part].requires_grad_(False)


def _in_dataset(cache: Cache, occurring: Sequence[set[int] | None]) -> list[int]:
    """Return the tokens of data sets, ascending; of one that does not list them, the cache's."""
    if all(tokens is not None for tokens in occurring):
        return sorted({token for tokens in occurring for token in tokens or ()})
    try:
        return [
            token
            for token in read_vocabulary(cache.attachment(VOCABULARY))
            if token < cache.manifest.vocab_size
        ]
    except CacheError as error:
        raise InputError(
            f"{cache.address}: does not list the tokens that occur (--vocab dataset); extract again"
        ) from error
