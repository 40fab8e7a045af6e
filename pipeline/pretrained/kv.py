"""Whether a decoder can continue from the keys and values of earlier tokens alone."""

from __future__ import annotations

from transformers import MODEL_MAPPING, PreTrainedConfig

_FULL = "full_attention"
_ATTENTION = {_FULL, "sliding_attention"}
"""Types of layers that only need keys and values of earlier tokens, regardless of padding."""
_WINDOWS = ("sliding_window", "window_size", "attention_chunk_size")
"""Names in configurations for the number of tokens that a layer looks back."""


def kv_obstacle(config: PreTrainedConfig) -> str | None:
    """Return why a decoder needs more than keys and values of earlier tokens, None if it does not.

    Args:
        config: of the whole model.
    """
    part = config.get_text_config(decoder=True)
    if any(map(_is_stateful, (config, part))):
        return "it keeps a state that is not a key-value cache"
    types = {str(layer) for layer in getattr(part, "layer_types", None) or ()}
    if others := sorted(types - _ATTENTION):
        return f"it has layers of the type {others[0]}"
    return None


def sees_all_tokens(config: PreTrainedConfig) -> bool:
    """Return whether all layers attend to all earlier tokens, however far back in the batch.

    Args:
        config: of the whole model.
    """
    part = config.get_text_config(decoder=True)
    if kv_obstacle(config) is not None:
        return False
    if types := getattr(part, "layer_types", None):
        return {*types} == {_FULL}
    return not any(getattr(part, name, None) for name in _WINDOWS)


def _is_stateful(config: PreTrainedConfig) -> bool:
    """Return whether models of this configuration keep a recurrent state.

    Transformers has only the private `_is_stateful` to mark them, which its `generate` reads, too.
    """
    models = MODEL_MAPPING.get(type(config), None)
    return any(
        getattr(model, "_is_stateful", False)
        for model in (models if isinstance(models, tuple) else (models,))
    )
