"""Fit the normalisation of a student's bridge to the hidden states of its training rows."""

from __future__ import annotations

import random

import torch

from pipeline.batches.collate import collate
from pipeline.batches.decoder import StatesDecoder
from pipeline.batches.examples import CachedExamples
from pipeline.model import LLMModulesForCausalLM
from pipeline.model.bridges.prompt import PromptBridge
from pipeline.model.bridges.standard_norm import StandardNorm

_SAMPLE_TOKENS = 16384


def fit_norms(
    model: LLMModulesForCausalLM, examples: CachedExamples, decoder: StatesDecoder, seed: int
) -> None:
    """Measure mean and deviation of each channel; a bridge without standardisation is not changed.

    Args:
        model: the student.
        examples: its training examples.
        decoder: of their hidden states.
        seed: of the sample of examples.
    """
    bridge = model.bridge
    if not isinstance(bridge, PromptBridge):
        return
    norms = [norm for norm in bridge.norm if isinstance(norm, StandardNorm)]
    if not norms:
        return
    states_KD: list[torch.Tensor] = []
    tokens = 0
    for place in random.Random(seed).sample(range(len(examples)), len(examples)):
        states_KD.append(decoder(collate([examples[place]]))["hidden_states"][0].float())
        tokens += len(states_KD[-1])
        if tokens >= _SAMPLE_TOKENS:
            break
    layers = torch.cat(states_KD).chunk(len(norms), dim=-1)
    for norm, layer_ND in zip(norms, layers, strict=True):
        norm.fit(layer_ND)
