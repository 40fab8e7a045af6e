"""Layer numbers on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import InputError


def spread_layers(last: int) -> tuple[int, ...]:
    """Return -1, 0 and the layers at a quarter, half and three quarters of the depth."""
    between = {round(last * share) for share in (0.25, 0.5, 0.75)} - {0, last}
    return (-1, 0, *sorted(between))


def layer_indices(layers: Sequence[int], last: int) -> dict[int, int]:
    """Return the index of each layer, from 0 (embeddings) to `last` (after the final norm).

    Raises:
        InputError: a layer does not exist, or is repeated.
    """
    resolved = {layer: layer if layer >= 0 else last + 1 + layer for layer in layers}
    for layer, index in resolved.items():
        if not 0 <= index <= last:
            raise InputError(
                f"--layers {layer}: no such layer; choose from 0 (embeddings) to {last}, or"
                f" -{last + 1} to -1"
            )
    if len(set(resolved.values())) < len(layers):
        raise InputError(
            f"--layers {','.join(map(str, layers))}: a layer is repeated; list it once"
        )
    return resolved
