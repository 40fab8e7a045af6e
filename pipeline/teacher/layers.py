"""Which layers a teacher has, as the command line counts them."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import InputError


def layer_indices(layers: Sequence[int], last: int) -> dict[int, int]:
    """Each layer asked for with its index counted from the embeddings (0) to the output after the
    final norm (`last`).

    Raises:
        InputError: no such layer, or one asked for twice.
    """
    resolved = {layer: layer if layer >= 0 else last + 1 + layer for layer in layers}
    for layer, index in resolved.items():
        if not 0 <= index <= last:
            raise InputError(
                f"--layers {layer}: the teacher has layers 0 (embeddings) to {last} (or -{last + 1}"
                " to -1)"
            )
    if len(set(resolved.values())) < len(layers):
        raise InputError(f"--layers {','.join(map(str, layers))}: the same layer twice")
    return resolved
