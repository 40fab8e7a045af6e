"""Whether a model took all tensors of a GGUF file: transformers leaves out, without a word, those
that it has no place for."""

from __future__ import annotations

import re
from pathlib import Path

from gguf import MODEL_ARCH_NAMES, get_tensor_name_map
from transformers import PreTrainedModel
from transformers.integrations.gguf.reader import read_gguf_metadata
from transformers.integrations.gguf.utils import is_gguf_arch_supported

_OF_EXPERTS = re.compile(r"_(ch)?exps\.")
"""The tensors of several experts are one in a GGUF file, and not in transformers: it takes them
apart itself."""
_MAY_BE_THERE = re.compile(r"^output\.|^rope_(freqs|factors_\w+)\.|^dec\.|\.rotary_emb\.")
"""The head, rotary frequencies, and of a model of encoder and decoder the half that is not read."""
_NAMED = 3


def require_all_tensors_used(file: Path, model: PreTrainedModel) -> None:
    """Refuse a file whose tensors the model has no place for: an architecture that transformers
    reads as another.

    Args:
        file: a whole GGUF file.
        model: what transformers made of it.

    Raises:
        ValueError: names such tensors.
    """
    metadata, names = read_gguf_metadata(str(file))
    architecture = next(
        (
            found
            for found, name in MODEL_ARCH_NAMES.items()
            if name == metadata["general.architecture"]
        ),
        None,
    )
    if architecture is None or is_gguf_arch_supported(
        metadata["general.architecture"]
    ):  # the latter are loaded by name
        return
    mapped = get_tensor_name_map(
        architecture, int(model.config.get_text_config(decoder=True).num_hidden_layers)
    )
    known: set[str] = set()
    for name, _ in [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]:
        stem, dot, suffix = name.rpartition(".")
        # A body's tensors have no name of its own before theirs, in GGUF's map they have.
        for prefix in ("", "model.", "transformer.", f"{model.base_model_prefix}."):
            if found := mapped.get_name(prefix + stem) or mapped.get_name(prefix + name):
                known |= (
                    {f"{found}{dot}{suffix}", f"{found}.weight", found}
                    if suffix not in ("weight", "bias")
                    else {f"{found}{dot}{suffix}"}
                )
    unused = [
        name
        for name in names
        if name not in known and not _OF_EXPERTS.search(name) and not _MAY_BE_THERE.search(name)
    ]
    if unused:
        listed = ", ".join(sorted(unused)[:_NAMED]) + (
            f" and {len(unused) - _NAMED} more" if len(unused) > _NAMED else ""
        )
        raise ValueError(f"tensors unexpected: {listed}")
