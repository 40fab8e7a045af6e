"""The tensors that a checkpoint may lack, or may have in addition to the model's own."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

_MAY_BE_MISSING = re.compile(r"(^|\.)pooler\.")
"""An encoder's pooler, on which no hidden state depends. (Transformers does not report tied weights
or a family's `_keys_to_ignore_on_load_missing` as missing.)"""
_MAY_BE_EXTRA = re.compile(
    r"(^|\.)(rotary_emb\.(inv_freq|cos_cached|sin_cached)|position_ids|masked_bias|embed_positions\.(weights|_float_tensor))$"
    # the causal mask of GPT-2, GPT-Neo and GPT-J; true biases belong to a projection
    r"|(^|\.)(attn|attention)(\.attention)?\.bias$"
    r"|^(lm_head|embed_out|v_head)\."
)
"""Buffers that a model computes and older releases saved, and heads on top of it."""
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
_MAX_LISTED = 3


def require_all_tensors(model: PreTrainedModel, loading_info: dict[str, Any]) -> None:
    """Refuse a model that was not loaded from exactly its own tensors.

    Args:
        model: returned by `from_pretrained`.
        loading_info: returned with it by `output_loading_info=True`.

    Raises:
        ValueError: names tensors that are missing, unexpected, or of another shape.
    """
    missing = [name for name in loading_info["missing_keys"] if not _MAY_BE_MISSING.search(name)]
    unexpected = [
        name for name in loading_info["unexpected_keys"] if not _MAY_BE_EXTRA.search(name)
    ]
    if unexpected:
        heads = _tensors_of_heads(model)
        unexpected = [name for name in unexpected if name not in heads]
    problems = []
    if missing:
        problems.append(f"missing: {_listed(missing)}")
    if unexpected:
        problems.append(f"unexpected: {_listed(unexpected)}")
    if mismatched := sorted(loading_info["mismatched_keys"]):
        shapes = [
            f"{name} is {list(stored)}, its configuration says {list(expected)}"
            for name, stored, expected in mismatched
        ]
        problems.append(f"of another shape: {_listed(shapes)}")
    problems += [str(message) for message in loading_info.get("error_msgs") or ()]
    if problems:
        wrapper = next((match for name in unexpected if (match := _WRAPPERS.search(name))), None)
        hint = f"; save the model without its wrapper {wrapper[2]!r}" if wrapper else ""
        raise ValueError(f"tensors {'; '.join(problems)}{hint}")


def _tensors_of_heads(model: PreTrainedModel) -> set[str]:
    """Return the names of all heads' tensors in this family, without allocating them."""
    names: set[str] = set()
    for kind in _whole_models(model):
        try:
            with torch.device("meta"):
                whole = kind(copy.deepcopy(model.config))
        except Exception:  # the configuration does not fit this class
            continue
        prefix = f"{kind.base_model_prefix}."
        names |= {name for name in whole.state_dict() if not name.startswith(prefix)}
    return names


def _whole_models(model: PreTrainedModel) -> set[type[PreTrainedModel]]:
    config = model.config
    named = [getattr(transformers, str(name), None) for name in config.architectures or ()]
    mapped = [getattr(transformers, mapping).get(type(config), ()) for mapping in _WHOLE_MODELS]
    kinds: list[Any] = [
        *named,
        *(kind for entry in mapped for kind in (entry if isinstance(entry, tuple) else (entry,))),
    ]
    return {
        kind
        for kind in kinds
        if isinstance(kind, type) and issubclass(kind, PreTrainedModel) and kind is not type(model)
    }


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _MAX_LISTED
    return ", ".join(sorted(names)[:_MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")
