"""A check that a model uses all tensors of a GGUF file: transformers drops others silently."""

from __future__ import annotations

import re
from pathlib import Path

from gguf import MODEL_ARCH_NAMES, get_tensor_name_map
from transformers import PreTrainedModel
from transformers.integrations.gguf.reader import read_gguf_metadata
from transformers.integrations.gguf.utils import is_gguf_arch_supported

_EXPERTS = re.compile(r"_(ch)?exps\.")
"""A GGUF file stores the tensors of all experts as one, which transformers takes apart."""
_OPTIONAL = re.compile(r"^output\.|^rope_(freqs|factors_\w+)\.|^dec\.|\.rotary_emb\.")
"""The head, rotary frequencies, and the decoder of an encoder-decoder."""
_MAX_LISTED = 3


def require_all_tensors_used(file: Path, model: PreTrainedModel) -> None:
    """Refuse a file with tensors that the model lacks: transformers took it for another family.

    Args:
        file: a whole GGUF file.
        model: the model that transformers loaded from it.

    Raises:
        ValueError: names unused tensors.
    """
    metadata, names = read_gguf_metadata(str(file))
    architecture = next(
        (
            candidate
            for candidate, name in MODEL_ARCH_NAMES.items()
            if name == metadata["general.architecture"]
        ),
        None,
    )
    if architecture is None or is_gguf_arch_supported(metadata["general.architecture"]):
        return  # supported architectures are loaded by name
    mapped = get_tensor_name_map(
        architecture, int(model.config.get_text_config(decoder=True).num_hidden_layers)
    )
    used: set[str] = set()
    for name, _ in [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]:
        stem, dot, suffix = name.rpartition(".")
        # GGUF's map expects the prefix of a whole model, which a base model's tensors lack.
        for prefix in ("", "model.", "transformer.", f"{model.base_model_prefix}."):
            if gguf_name := mapped.get_name(prefix + stem) or mapped.get_name(prefix + name):
                used |= (
                    {f"{gguf_name}{dot}{suffix}", f"{gguf_name}.weight", gguf_name}
                    if suffix not in ("weight", "bias")
                    else {f"{gguf_name}{dot}{suffix}"}
                )
    unused = [
        name
        for name in names
        if name not in used and not _EXPERTS.search(name) and not _OPTIONAL.search(name)
    ]
    if unused:
        listed = ", ".join(sorted(unused)[:_MAX_LISTED]) + (
            f" and {len(unused) - _MAX_LISTED} more" if len(unused) > _MAX_LISTED else ""
        )
        raise ValueError(f"tensors unexpected: {listed}")
