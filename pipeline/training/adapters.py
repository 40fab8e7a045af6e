"""Low-rank adapters (LoRA) of a student's decoder, in place of its own weights."""

from __future__ import annotations

import warnings

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer

from pipeline.model import LLMModulesForCausalLM
from pipeline.model.weights import decoder_weights

_SCALE = 2
"""Factor of the adapters' output (`lora_alpha` is this times the rank)."""


def freeze_decoder(model: LLMModulesForCausalLM) -> None:
    """Freeze a student's decoder, with its LM head if that is the decoder's."""
    for weights in decoder_weights(model):
        weights.requires_grad_(False)


def add_adapters(model: LLMModulesForCausalLM, rank: int) -> None:
    """Freeze a student's decoder, and add adapters of new weights to all of its linear layers.

    Token embeddings stay trainable if they are new, because the tokens are the teacher's.
    """
    freeze_decoder(model)
    config = LoraConfig(r=rank, lora_alpha=_SCALE * rank, target_modules="all-linear")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fan_in_fan_out")  # set as GPT-2's layers need it
        inject_adapter_in_model(config, model.body)
    embeddings = model.get_input_embeddings()
    if embeddings is not None:
        embeddings.requires_grad_(not model.config.own_tokens)


def merge_adapters(model: LLMModulesForCausalLM) -> None:
    """Add the adapters of a student to its weights, and remove them."""
    adapted = [
        (name, layer)
        for name, layer in model.body.named_modules()
        if isinstance(layer, BaseTunerLayer)
    ]
    for name, layer in adapted:
        layer.merge()
        model.body.set_submodule(name, layer.get_base_layer())
