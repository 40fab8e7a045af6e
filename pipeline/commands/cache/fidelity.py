"""`cache fidelity`: what each codec takes on this cache's own data, and what it loses."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import cloup
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

from cache.places import Place
from pipeline.commands.cache_places import cache_places
from pipeline.commands.counted import counted
from pipeline.commands.shell import command
from pipeline.errors import InputError
from pipeline.extract.codec_comparison import FidelitySettings, LayerFidelity, compare
from pipeline.progress import progress_bar


@cloup.command()
@click.argument("cache")
@cloup.option_group(
    "What is measured",
    click.option("--layer", type=int, help="Only this layer.  [default: all]"),
    click.option("--tokens", type=click.IntRange(min=2), default=65536, show_default=True, help="Tokens to measure on."),
    click.option("--kl-tokens", type=click.IntRange(min=2), default=4096, show_default=True, help="Of these, for the LM head."),
    click.option(
        "--calibration-tokens",
        type=click.IntRange(min=1),
        default=32768,
        show_default=True,
        help="Tokens to fit the codecs to, of other examples; half of all where there are fewer.",
    ),
    click.option("--seed", default=0, show_default=True, help="Chooses both."),
    click.option(
        "--kl/--no-kl", default=True, show_default=True, help="Measure KL divergences of the last layer; takes the teacher."
    ),
    click.option("--teacher", help="The cache's teacher, where that has moved."),
    click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, …"),
    click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder for fidelity.json, fidelity.html and pictures.",
    ),
)
@command
@cache_places("cache")
def fidelity(cache: Place, *, out: Path | None, as_json: bool, **options: Any) -> dict[str, Any]:
    """Compare the codecs on a cache's own data: bits a value against what is lost, beside the Gaussian rate-distortion bound.

    The codecs are fitted to some examples and measured on others. Layers that the cache stores exactly are taken from it; of
    others the teacher is asked again, and what the cache stores is measured too.

    \b
    Examples:
      llm-modules cache fidelity my-cache --out my-fidelity
      llm-modules cache fidelity my-cache --layer 12 --no-kl
    """
    if out is not None and out.resolve().is_relative_to(cache.folder.resolve()):
        raise InputError(f"--out {out}: lies in the cache itself; name another folder")
    with progress_bar(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("fidelity", total=None)
        found = compare(
            FidelitySettings(cache, **options),
            lambda what, done, total: bar.update(task, description=what, completed=done, total=total or None),
        )
    result = {"kind": "llm-modules fidelity", "cache": cache.address, "layers": [asdict(layer) for layer in found]}
    if out is not None:
        from pipeline.report.fidelity import write_fidelity  # matplotlib takes a second to load

        write_fidelity(out, result)
    if not as_json:
        click.echo("\n\n".join(map(_in_words, found)) + (f"\n\nwritten to {out}" if out else ""))
    return result


def _in_words(layer: LayerFidelity) -> str:
    lines = [
        f"layer {layer.layer} (stored as {layer.stored_as}): measured on {counted(layer.measured_tokens, 'token')} of "
        f"{counted(layer.measured_examples, 'example')}{f', KL on {layer.kl_tokens:,}' if layer.kl_tokens else ''}; "
        f"fitted to {counted(layer.calibration_tokens, 'token')} of {layer.calibration_examples:,} others",
        f"{'codec':<10} {'setting':<30} {'bits':>7} {'bound':>7} {'over it':>7} {'rel. error':>10} {'KL (nats)':>20}",
    ]
    for point in layer.points:
        bound = (
            ("", "")
            if point.bound_bits is None
            else (f"{point.bound_bits:.3f}", f"{point.bits_per_value - point.bound_bits:.3f}")
        )
        kl = "" if point.kl is None else f"{point.kl:.6f} ± {point.kl_error:.6f}"
        lines.append(
            f"{point.codec:<10} {point.setting:<30} {point.bits_per_value:>7.3f} {bound[0]:>7} {bound[1]:>7} "
            f"{point.relative_error:>10.4f} {kl:>20}"
        )
    if layer.bound_is_low:
        lines.append("the bound is too low: few tokens were measured for so many channels; raise --tokens")
    if layer.unmet:
        lines.append(f"no step of klt gives {', '.join(layer.unmet)} here")
    return "\n".join(lines)
