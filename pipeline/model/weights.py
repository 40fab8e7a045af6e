"""The weights of a student's decoder: which they are, and copied from a pretrained one."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear
from transformers import AutoModelForCausalLM, PreTrainedModel

from pipeline.errors import InputError
from pipeline.model.body import GPTNeoBody, embeddings_name, in_evaluation
from pipeline.model.student import LLMModulesForCausalLM
from pipeline.pretrained.load import load_error_reason, load_model
from pipeline.pretrained.source import ModelSource

_MAX_ERROR = 0.05
"""Of logits, relative to their norm; computing in bfloat16 causes a hundredth."""


def copy_all(model: LLMModulesForCausalLM, source: ModelSource) -> None:
    """Copy a whole decoder: embeddings, positions, blocks, and the LM head's rows.

    Raises:
        InputError: it cannot be loaded, or predicts otherwise than by an LM head without bias.
    """
    whole, body = _pretrained(source)
    _load_body(model, body.state_dict(), source, without=())
    head_VS = _require_plain_head(model.body, whole, source)
    with torch.no_grad():
        rows = head_VS if model.head_tokens is None else head_VS[model.head_tokens]
        model.lm_head.weight.copy_(rows)


def copy_blocks(model: LLMModulesForCausalLM, source: ModelSource) -> None:
    """Copy a decoder's blocks and positions, not its embeddings, which are of other tokens.

    Raises:
        InputError: it cannot be loaded.
    """
    _, body = _pretrained(source)
    weights = body.state_dict()
    without = [f"{embeddings_name(body)}."]
    positions_PS = None
    if isinstance(model.body, GPTNeoBody):
        positions_PS = weights["wpe.weight"]
        without.append("wpe.")
    _load_body(model, weights, source, without=tuple(without))
    if positions_PS is not None and not model.bridge.replaces_embeddings:
        with torch.no_grad():
            table: Any = model.body.wpe
            table.weight[: len(positions_PS)].copy_(positions_PS)


def _pretrained(source: ModelSource) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Return a whole model, and its body: of a model of several media the text decoder."""
    try:
        whole: Any = load_model(AutoModelForCausalLM, source)
    except Exception as error:
        raise InputError(
            f"{source.label}: its weights could not be loaded ({load_error_reason(error)})"
        ) from error
    whole.eval()
    is_text = whole.config.get_text_config(decoder=True) is whole.config
    return whole, whole.base_model if is_text else whole.get_decoder()


def _load_body(
    model: LLMModulesForCausalLM,
    weights: dict[str, torch.Tensor],
    source: ModelSource,
    without: tuple[str, ...],
) -> None:
    """Load the weights of a body, except those whose names begin with one of `without`."""
    kept = {name: value for name, value in weights.items() if not name.startswith(without)}
    loaded = model.body.load_state_dict(kept, strict=False)
    missing = [name for name in loaded.missing_keys if not name.startswith(without)]
    if loaded.unexpected_keys or missing:
        raise InputError(
            f"{source.label}: its weights do not fit {type(model.body).__name__} ({loaded}); name"
            " another"
        )


@torch.no_grad()
def _require_plain_head(
    body: PreTrainedModel, whole: PreTrainedModel, source: ModelSource
) -> torch.Tensor:
    """Return the weight of a model's LM head, if its logits are those of a body's states and it.

    Raises:
        InputError: the head has a bias, or the logits are scaled or capped.
    """
    head: Any = whole.get_output_embeddings()
    vocabulary = int(whole.config.get_text_config(decoder=True).vocab_size)
    ids_BT = torch.arange(1, 5)[None] % vocabulary
    states_TS = in_evaluation(body, input_ids=ids_BT)[0]
    weight: torch.Tensor = head.weight
    if (
        getattr(head, "bias", None) is None
        and not getattr(body.config, "final_logit_softcapping", None)
        and weight.shape[-1] == states_TS.shape[-1]
    ):
        whole_TV = whole(input_ids=ids_BT).logits[0].float()
        head_TV = linear(states_TS.float(), weight.float())
        if (whole_TV - head_TV).norm() <= _MAX_ERROR * whole_TV.norm():
            return weight
    raise InputError(
        f"{source.label}: its logits are not its last states times an LM head without bias (they"
        " are scaled, capped or shifted); name another model"
    )


def decoder_weights(model: LLMModulesForCausalLM) -> list[nn.Parameter]:
    """Return the weights of a student's decoder, with its LM head if the tokens are its own."""
    head = model.lm_head.parameters() if model.config.own_tokens else ()
    return [*model.body.parameters(), *head]
