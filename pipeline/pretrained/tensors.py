"""The rule: which tensors a checkpoint may lack, and which it may hold beside those that a model
has."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel
from transformers.models.auto import modeling_auto

_MAY_BE_MISSING = re.compile(r"(^|\.)pooler\.")
"""What reads an encoder's states to sum a text up: no hidden state depends on it. (Tied weights are
none that transformers counts as missing, nor what a family's own `_keys_to_ignore_on_load_missing`
names.)"""
_MAY_BE_THERE = re.compile(
    r"(^|\.)(rotary_emb\.(inv_freq|cos_cached|sin_cached)|position_ids|masked_bias|embed_positions\.(weights|_float_tensor))$"
    # the causal mask of GPT-2, GPT-Neo, GPT-J; a bias is that of a projection
    r"|(^|\.)(attn|attention)(\.attention)?\.bias$"
    r"|^(lm_head|embed_out|v_head)\."
)
"""What a model computes itself and older releases saved, and heads on top of it."""
_WHOLE_MODELS = (
    "MODEL_FOR_PRETRAINING_MAPPING",
    "MODEL_FOR_CAUSAL_LM_MAPPING",
    "MODEL_FOR_MASKED_LM_MAPPING",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING",
    "MODEL_FOR_QUESTION_ANSWERING_MAPPING",
)
_WRAPPERS = re.compile(
    r"(^|\.)(_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module|_forward_module|module)\."
)
_NAMED = 3


def require_all_tensors(model: PreTrainedModel, loading_info: dict[str, Any]) -> None:
    """Refuse a model that was not loaded from exactly the tensors that it has.

    Args:
        model: as `from_pretrained` gave it.
        loading_info: what came with it by `output_loading_info=True`, mismatched sizes ignored.

    Raises:
        ValueError: names tensors that are missing, unexpected, or of another shape.
    """
    missing = [name for name in loading_info["missing_keys"] if not _MAY_BE_MISSING.search(name)]
    unexpected = [
        name for name in loading_info["unexpected_keys"] if not _MAY_BE_THERE.search(name)
    ]
    if unexpected:
        heads = _tensors_of_heads(model)
        unexpected = [name for name in unexpected if name not in heads]
    faults = []
    if missing:
        faults.append(f"missing: {_listed(missing)}")
    if unexpected:
        faults.append(f"unexpected: {_listed(unexpected)}")
    if mismatched := sorted(loading_info["mismatched_keys"]):
        shapes = [
            f"{name} is {list(found)}, its configuration says {list(wanted)}"
            for name, found, wanted in mismatched
        ]
        faults.append(f"of another shape: {_listed(shapes)}")
    faults += [str(message) for message in loading_info.get("error_msgs") or ()]
    if faults:
        wrapper = next((found for name in unexpected if (found := _WRAPPERS.search(name))), None)
        hint = (
            f"; a wrapper's name is in those of the tensors: save the model without {wrapper[2]!r}"
            if wrapper
            else ""
        )
        raise ValueError(f"tensors {'; '.join(faults)}{hint}")


def _tensors_of_heads(model: PreTrainedModel) -> set[str]:
    """Names of the tensors that whole models of this family have on top of the body; made without
    memory for them."""
    found: set[str] = set()
    for kind in _whole_models(model):
        try:
            with torch.device("meta"):
                whole = kind(copy.deepcopy(model.config))
        except Exception:  # a class that this configuration does not fit has nothing to say
            continue
        inside = f"{kind.base_model_prefix}."
        found |= {name for name in whole.state_dict() if not name.startswith(inside)}
    return found


def _whole_models(model: PreTrainedModel) -> set[type[PreTrainedModel]]:
    config = model.config
    named = [getattr(transformers, str(name), None) for name in config.architectures or ()]
    mapped = [getattr(modeling_auto, mapping).get(type(config), ()) for mapping in _WHOLE_MODELS]
    kinds: list[Any] = [
        *named,
        *(kind for each in mapped for kind in (each if isinstance(each, tuple) else (each,))),
    ]
    return {
        kind
        for kind in kinds
        if isinstance(kind, type) and issubclass(kind, PreTrainedModel) and kind is not type(model)
    }


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(sorted(names)[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
