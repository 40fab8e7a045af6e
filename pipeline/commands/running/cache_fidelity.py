"""`cache fidelity`: measure with a progress bar; write the page and print the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

from cache.storage import storage_location
from pipeline.commands.counted import counted
from pipeline.progress import shown_progress
from pipeline.report.fidelity import fidelity_json, write_fidelity
from pipeline.upkeep.compare_codecs import compare
from pipeline.upkeep.layer_fidelity import LayerFidelity
from pipeline.upkeep.settings import FidelitySettings


def compare_and_report(
    settings: FidelitySettings, out: Path | None, *, as_json: bool
) -> dict[str, Any]:
    """Compare codecs on a cache; write the page, print a table unless `as_json`; return it all.

    Raises:
        CacheError, InputError: as `compare`.
    """
    address = storage_location(settings.cache).address
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with shown_progress(*columns) as progress:
        layers = compare(settings, progress)
    if out is not None:
        write_fidelity(out, address, layers)
    if not as_json:
        click.echo("\n\n".join(map(_in_words, layers)) + (f"\n\nwritten to {out}" if out else ""))
    return fidelity_json(address, layers)


def _in_words(layer: LayerFidelity) -> str:
    kl_tokens = f", KL on {layer.kl_tokens:,}" if layer.kl_tokens else ""
    lines = [
        (
            f"layer {layer.layer} (stored as {layer.stored_as}): measured on"
            f" {counted(layer.measured_tokens, 'token')} of"
            f" {counted(layer.measured_examples, 'example')}{kl_tokens};"
            f" fitted to {counted(layer.calibration_tokens, 'token')} of"
            f" {layer.calibration_examples:,} others"
        ),
        (
            f"{'codec':<10} {'setting':<30} {'bits':>7} {'bound':>7} {'over it':>7}"
            f" {'rel. error':>10} {'KL (nats)':>20}"
        ),
    ]
    for point in layer.points:
        bound = (
            ("", "")
            if point.bound_bits is None
            else (f"{point.bound_bits:.3f}", f"{point.bits_per_value - point.bound_bits:.3f}")
        )
        kl = "" if point.kl is None else f"{point.kl:.6f} ± {point.kl_error:.6f}"
        lines.append(
            f"{point.codec:<10} {point.setting:<30} {point.bits_per_value:>7.3f} {bound[0]:>7}"
            f" {bound[1]:>7} {point.relative_error:>10.4f} {kl:>20}"
        )
    if layer.bound_is_low:
        lines.append("the bound is too low: few tokens for the number of channels; raise --tokens")
    if layer.unmet:
        lines.append(f"no step of klt reaches {', '.join(layer.unmet)} here")
    return "\n".join(lines)
