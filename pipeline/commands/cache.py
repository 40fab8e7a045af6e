"""`cache`: look into a cache, check it, mend it, write it in another format."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from cache.codecs import CODEC_NAMES
from cache.convert import convert_cache
from cache.formats import FORMAT_NAMES
from cache.summary import published_bytes, summarise_cache
from cache.verify import Verification, verify_cache
from pipeline.commands.shell import command
from pipeline.errors import RunError
from pipeline.extract.recheck import Recheck, recheck
from pipeline.extract.repair import RepairResult, RepairSettings
from pipeline.extract.repair import repair as run_repair
from pipeline.progress import progress_bar

_FOLDER = click.Path(path_type=Path)
_MOST_LINES = 20


@click.group()
def cache() -> None:
    """Look into a cache, check it, mend it, or write it in another format."""


@cache.command()
@click.argument("folder", metavar="CACHE", type=_FOLDER)
@command
def inspect(folder: Path, *, as_json: bool) -> dict[str, Any]:
    """Say what a cache holds, finished or not. No shard is opened.

    \b
    Examples:
      llm-modules cache inspect my-cache
      llm-modules cache inspect my-cache --json | jq .content_digest
    """
    summary = summarise_cache(folder)
    if not as_json:
        click.echo(_summary_in_words(summary))
    return summary


@cache.command()
@click.argument("folder", metavar="CACHE", type=_FOLDER)
@click.option("--deep", is_flag=True, help="Also run the live teacher over a sample and compare, layer by layer.")
@click.option("--sample", type=click.IntRange(min=1), default=16, show_default=True, help="--deep: examples to compare.")
@click.option("--seed", default=0, show_default=True, help="--deep: of the random sample.")
@click.option("--teacher", help="--deep: the cache's teacher, where that has moved.")
@click.option("--device", default="auto", show_default=True, help="--deep: cpu, cuda, cuda:1, …")
@command
def verify(
    folder: Path, *, deep: bool, sample: int, seed: int, teacher: str | None, device: str, as_json: bool
) -> dict[str, Any]:
    """Check every byte of a cache: checksums, shapes, offsets, row ids, token ids, loss masks, finite values.

    All damage is listed, with file and examples. Exit status 1 where something is damaged or missing, or, with --deep, where
    a layer's stored states are not the teacher's.

    \b
    Examples:
      llm-modules cache verify my-cache
      llm-modules cache verify my-cache --deep --sample 50
    """
    with progress_bar(TextColumn("verify"), BarColumn(), DownloadColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("verify", total=published_bytes(folder))
        found = verify_cache(folder, lambda size: bar.update(task, advance=size))
    compared = None
    if deep and found.whole:
        with progress_bar(TextColumn("compare"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
            task = bar.add_task("compare", total=None)
            compared = recheck(
                folder,
                sample=sample,
                teacher=teacher,
                device=device,
                seed=seed,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    result = asdict(found) | {"deep": asdict(compared) if compared else None}
    bad = _complaint(folder, found, compared)
    if not as_json:
        click.echo(_verification_in_words(found, compared))
    elif bad:
        click.echo(json.dumps(result))
    if bad:
        raise RunError(bad)
    return result


@cache.command()
@click.argument("folder", metavar="CACHE", type=_FOLDER)
@click.option("--teacher", help="The cache's teacher, where that has moved.")
@click.option("--dataset", help="The cache's data set, where that has moved.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, …")
@click.option("--skip-non-finite", is_flag=True, help="Leave out, and count, rows for which the teacher gives NaN or infinity.")
@click.option(
    "--allow-other-numbers", is_flag=True,
    help="Accept shards whose numbers differ from the lost ones, as on another machine; the content digest changes.",
)  # fmt: skip
@command
def repair(folder: Path, *, as_json: bool, **options: Any) -> dict[str, Any]:
    """Verify a cache, and extract again the shards that are damaged or missing, and no others.

    Manifest and journal hold a copy of what matters in the other: where one of them is lost it is put back. The repaired cache
    has the content digest that it had.

    \b
    Examples:
      llm-modules cache repair my-cache
      llm-modules cache repair my-cache --teacher moved/Qwen2-1.5B --dataset moved/rows.jsonl
    """
    with progress_bar(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()) as bar:
        checking = bar.add_task("verify", total=published_bytes(folder))
        extracting = bar.add_task("extract", total=None, visible=False)
        result = run_repair(
            RepairSettings(folder, **options),
            lambda size: bar.update(checking, advance=size),
            lambda tokens, total: bar.update(extracting, advance=tokens, total=total, visible=True),
        )
    if not as_json:
        click.echo(_repair_in_words(result))
    return asdict(result)


@cache.command()
@click.argument("source", type=_FOLDER)
@click.argument("target", type=_FOLDER)
@click.option("--format", "container", type=click.Choice(FORMAT_NAMES), help="Format of the new cache.  [default: the old one's]")
@click.option("--codec", type=click.Choice(CODEC_NAMES), help="Codec of the new cache.  [default: the old one's]")
@command
def convert(source: Path, target: Path, *, container: str | None, codec: str | None, as_json: bool) -> dict[str, Any]:
    """Write the cache SOURCE anew as TARGET, in another format or codec. The teacher is not needed.

    Identity is kept, and in the same codec the content digest, too. Interrupted, it goes on when it is run again.

    \b
    Examples:
      llm-modules cache convert my-cache my-cache-hdf5 --format hdf5
    """
    with progress_bar(TextColumn("convert"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("convert", total=None)
        result = convert_cache(
            source,
            target,
            container=container,
            codec=codec,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if not as_json:
        click.echo(
            f"{result.cache}: {result.examples:,} examples in {result.shards} shards ({result.resumed_shards} from before), "
            f"{result.format} {result.codec}, {result.bytes / 1e6:,.1f} MB (was {result.source_bytes / 1e6:,.1f} MB); "
            f"content digest {result.content_digest[:16]}…, {'the same' if result.same_content else 'another'} as before"
        )
    return asdict(result)


def _summary_in_words(summary: dict[str, Any]) -> str:
    state = "complete" if summary["complete"] else f"NOT complete: {summary['shards']} of {summary['planned_shards']} shards"
    left_out = ", ".join(f"{count} {reason}" for reason, count in summary["left_out"].items()) or "none"
    lines = {
        "cache": f"{summary['cache']} ({state})",
        "stored as": f"{summary['format']}, {summary['codec']}, {summary['shards']} shards, {summary['bytes'] / 1e6:,.1f} MB",
        "layers": f"{', '.join(map(str, summary['layers']))}, each {summary['hidden_size']} wide",
        "examples": f"{summary['examples']:,} (left out: {left_out})",
        "tokens": f"{summary['tokens']:,} (stored: {summary['stored_tokens']:,})",
    }
    if summary["tokens"]:
        lines["size"] = f"{summary['bytes_per_token']:,} bytes a token, {summary['bits_per_value']} bits a value"
    lines["content digest"] = summary["content_digest"] or "– (not complete)"
    lines |= {f"identity: {field}": str(value) for field, value in summary["identity"].items()}
    for field in ("teacher", "dataset"):
        if field in summary["provenance"]:
            lines[f"made from: {field}"] = str(summary["provenance"][field])
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())


def _complaint(folder: Path, found: Verification, compared: Recheck | None) -> str | None:
    """What is wrong, in one line; None where all is well."""
    parts = []
    if shards := sorted({damage.shard for damage in found.damage if damage.shard is not None}):
        parts.append(f"{len(shards)} damaged shards ({', '.join(map(str, shards[:8]))}{', …' if len(shards) > 8 else ''})")
    if others := sorted({damage.file for damage in found.damage if damage.shard is None}):
        parts.append(f"damaged {', '.join(others)}")
    if found.missing_shards:
        parts.append(f"{len(found.missing_shards)} shards are missing")
    if parts:
        return f"{folder}: {'; '.join(parts)}; mend it with `cache repair {folder}`"
    if compared and (layers := [str(layer.layer) for layer in compared.layers if not layer.within_tolerance]):
        return f"{folder}: the stored states of layer {', '.join(layers)} are not the teacher's; extract again"
    return None


def _verification_in_words(found: Verification, compared: Recheck | None) -> str:
    lines = [f"{found.cache}: {found.shards} shards, {found.examples:,} examples, {found.bytes / 1e6:,.1f} MB looked at"]
    for damage in found.damage[:_MOST_LINES]:
        named = "" if not damage.examples else f"; examples {damage.examples[0]} to {damage.examples[-1]}"
        if len(damage.examples) <= 5 and damage.examples:
            named = "; example " + ", ".join(f"{i} (row {row})" for i, row in zip(damage.examples, damage.row_ids, strict=True))
        lines.append(f"damaged: {damage.file}: {damage.what}{named}")
    if len(found.damage) > _MOST_LINES:
        lines.append(f"… and {len(found.damage) - _MOST_LINES} more; --json lists all")
    if found.missing_shards:
        lines.append(f"missing: {len(found.missing_shards)} shards, from {found.missing_shards[0]} on")
    if found.strays:
        lines.append(f"not part of the cache: {', '.join(found.strays[:5])}{' …' if len(found.strays) > 5 else ''}")
    if compared:
        lines.append(f"live teacher ({compared.compute_dtype}) on {compared.examples} examples, {compared.tokens:,} tokens:")
        lines += [
            f"  layer {layer.layer}: relative error {layer.relative_error:.2e}, worst example {layer.worst_example} "
            f"(row {layer.worst_row_id}) {layer.worst_relative_error:.2e}, allowed {compared.tolerance}"
            for layer in compared.layers
        ]
    if found.whole:
        lines.append(f"whole; content digest {found.content_digest}")
    return "\n".join(lines)


def _repair_in_words(result: RepairResult) -> str:
    if not result.found:
        return f"{result.cache}: nothing to repair; content digest {result.content_digest}"
    lines = [f"found: {what}" for what in result.found[:_MOST_LINES]]
    if len(result.found) > _MOST_LINES:
        lines.append(f"… and {len(result.found) - _MOST_LINES} more; --json lists all")
    numbers = "with the numbers that were lost" if result.same_content else "with OTHER NUMBERS than the lost ones"
    lines.append(f"{result.cache}: whole; extracted again: {len(result.shards)} shards, {result.tokens:,} tokens, {numbers}")
    lines.append(f"content digest {result.content_digest}")
    return "\n".join(lines)
