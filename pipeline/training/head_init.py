"""A student's LM head to begin with: the teacher's, reduced to the student's width with the least
loss."""

from __future__ import annotations

import random

import torch

from cache import Cache
from pipeline.data.vocabulary import kept_head
from pipeline.model import LLMModulesForCausalLM
from pipeline.runs.settings import TrainSettings

_SAMPLE_TOKENS = 16384


def start_head(model: LLMModulesForCausalLM, cache: Cache, settings: TrainSettings) -> None:
    """Put the reduced LM head of the teacher into a student; rows of tokens that the cache does not
    know stay as they are.

    Raises:
        InputError: the cache kept no LM head, or not the states that it reads.
    """
    known, rows_KD = kept_head(cache, "--head-init teacher")
    reduced_KS = reduced_head(
        rows_KD.float(), _sampled_states(cache, settings.seed), model.config.hidden_size
    )
    tokens = torch.tensor(known)
    places = tokens if model.head_tokens is None else torch.searchsorted(model.head_tokens, tokens)
    with torch.no_grad():
        model.lm_head.weight[places] = reduced_KS.to(model.lm_head.weight.dtype)


def reduced_head(head_KD: torch.Tensor, states_ND: torch.Tensor, width: int) -> torch.Tensor:
    """`A` `[K, width]` such that logits `A z` of some `z = B h` are nearest to the teacher's logits
    `head h`, in the mean square.

    What a softmax does not see, a constant added to all logits, does not count. `z` is white: of
    unit second moment in all directions, as the states are that leave a LayerNorm. It is the
    truncated singular value decomposition of `head M^(1/2)`, with `M` the second moment of the
    states. A student wider than the teacher gets columns of zeros.

    Args:
        head_KD: the teacher's LM head.
        states_ND: a sample of the states that it reads.
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
    """States `[N, d_teacher]` of layer -1 of whole examples chosen at random."""
    order = random.Random(seed).sample(range(len(cache)), len(cache))
    states, tokens = [], 0
    for index in order:
        example = cache.example(index, (-1,))
        states.append(torch.from_numpy(example.hidden_states[-1].astype("float32")))
        tokens += len(example)
        if tokens >= _SAMPLE_TOKENS:
            break
    return torch.cat(states)
