"""Initialise a student's LM head with the teacher's, reduced to the student's width."""

from __future__ import annotations

import random

import torch

from cache import Cache
from pipeline.data.vocabulary import kept_head
from pipeline.model import LLMModulesForCausalLM
from pipeline.runs.settings import TrainSettings

_SAMPLE_TOKENS = 16384


def init_head(model: LLMModulesForCausalLM, cache: Cache, settings: TrainSettings) -> None:
    """Initialise a student's LM head; rows of tokens without a kept teacher row do not change.

    Raises:
        InputError: the cache has no LM head, or not the layer that it reads.
    """
    token_ids, rows_KD = kept_head(cache, "--head-init teacher")
    reduced_KS = reduced_head(
        rows_KD.float(), _sampled_states(cache, settings.seed), model.config.hidden_size
    )
    tokens = torch.tensor(token_ids)
    rows = tokens if model.head_tokens is None else torch.searchsorted(model.head_tokens, tokens)
    with torch.no_grad():
        model.lm_head.weight[rows] = reduced_KS.to(model.lm_head.weight.dtype)


def reduced_head(head_KD: torch.Tensor, states_ND: torch.Tensor, width: int) -> torch.Tensor:
    """Return `A` `[K, width]` whose logits `A z`, `z = B h`, best fit the teacher's `head h`.

    The error is the mean square up to a constant added to all logits, which a softmax ignores. `z`
    is white (its second moment is the identity), as the output of a LayerNorm. `A` is the truncated
    singular value decomposition of `head M^(1/2)`, where `M` is the second moment of the states. If
    the student is wider than the teacher, the remaining columns are zero.

    Args:
        head_KD: the teacher's LM head.
        states_ND: a sample of the teacher's last hidden states.
        width: of the student.
    """
    centred_KD = (head_KD - head_KD.mean(dim=0)).double()
    moment_DD = (states_ND.double().T @ states_ND.double()) / len(states_ND)
    values_D, vectors_DD = torch.linalg.eigh(moment_DD)
    root_DD = vectors_DD * values_D.clamp(min=0).sqrt() @ vectors_DD.T
    weighted_KD = centred_KD @ root_DD
    _, directions_DD = torch.linalg.eigh(weighted_KD.T @ weighted_KD)
    kept = directions_DD.flip(-1)[:, :width]
    reduced_KS = torch.zeros(len(head_KD), width, dtype=torch.float64)
    reduced_KS[:, : kept.shape[1]] = weighted_KD @ kept
    return reduced_KS.float()


def _sampled_states(cache: Cache, seed: int) -> torch.Tensor:
    """Return states `[N, d_teacher]` of layer -1, of randomly chosen whole examples."""
    order = random.Random(seed).sample(range(len(cache)), len(cache))
    states, tokens = [], 0
    for index in order:
        example = cache.example(index, (-1,))
        states.append(torch.from_numpy(example.hidden_states[-1].astype("float32")))
        tokens += len(example)
        if tokens >= _SAMPLE_TOKENS:
            break
    return torch.cat(states)
