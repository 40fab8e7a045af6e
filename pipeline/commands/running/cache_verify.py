"""`cache verify`: check with progress bars, and print what is wrong."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TextColumn,
    TimeRemainingColumn,
)

from cache.storage import StorageLocation
from cache.upkeep.summary import published_bytes
from cache.upkeep.verification import Verification
from cache.upkeep.verify import verify_cache
from pipeline.commands.counted import counted
from pipeline.errors import RunError
from pipeline.progress import count_columns, shown_progress
from pipeline.upkeep.settings import RecheckSettings

if TYPE_CHECKING:
    from pipeline.upkeep.recheck import Recheck

_MOST_LINES = 20


def verify_and_report(
    cache: StorageLocation, deep: RecheckSettings | None, *, as_json: bool
) -> dict[str, Any]:
    """Check a cache; print the result unless `as_json`; return it.

    Args:
        cache: location of the cache.
        deep: how to compare with the live teacher; None: do not.
        as_json: print nothing, or the result as JSON before an error.

    Raises:
        CacheError, InputError: as `verify_cache` and `recheck`.
        RunError: something is damaged or missing, or is not the teacher's.
    """
    name = TextColumn("{task.description}")
    with shown_progress(name, BarColumn(), DownloadColumn(), TimeRemainingColumn()) as progress:
        progress.stage("verify", published_bytes(cache))
        found = verify_cache(cache, progress.advance)
    compared = None
    if deep is not None and found.whole:
        from pipeline.upkeep.recheck import recheck  # imports torch, which checksums do not need

        with shown_progress(*count_columns()) as progress:
            compared = recheck(cache, deep, progress)
    result = asdict(found) | {"deep": asdict(compared) if compared else None}
    bad = _complaint(cache, found, compared)
    if not as_json:
        click.echo(_in_words(found, compared, deep=deep is not None))
    elif bad:
        click.echo(json.dumps(result))
    if bad:
        raise RunError(bad)
    return result


def _complaint(cache: StorageLocation, found: Verification, compared: Recheck | None) -> str | None:
    """Return the problem in one line, or None."""
    parts = []
    if shards := sorted({damage.shard for damage in found.damage if damage.shard is not None}):
        parts.append(
            f"{counted(len(shards), 'damaged shard')}"
            f" ({', '.join(map(str, shards[:8]))}{', …' if len(shards) > 8 else ''})"
        )
    if others := sorted({damage.file for damage in found.damage if damage.shard is None}):
        parts.append(f"damaged {', '.join(others)}")
    if found.missing_shards:
        parts.append(f"missing: {counted(len(found.missing_shards), 'shard')}")
    if found.missing_shards and not found.damage:
        return f"{cache.address}: not complete, {parts[-1]}; repeat the `extract` to continue it"
    if parts:
        return f"{cache.address}: {'; '.join(parts)}; repair it with `cache repair {cache.address}`"
    if compared and (
        layers := [str(layer.layer) for layer in compared.layers if not layer.within_tolerance]
    ):
        return (
            f"{cache.address}: the stored states of layer {', '.join(layers)} are not the"
            " teacher's; extract again"
        )
    return None


def _in_words(found: Verification, compared: Recheck | None, *, deep: bool) -> str:
    lines = [
        f"{found.cache}: {counted(found.shards, 'shard')}, "
        f"{counted(found.examples, 'example')}, {found.bytes / 1e6:,.1f} MB checked"
    ]
    for damage in found.damage[:_MOST_LINES]:
        named = (
            ""
            if not damage.examples
            else f"; examples {damage.examples[0]} to {damage.examples[-1]}"
        )
        if len(damage.examples) <= 5 and damage.examples:
            named = "; example " + ", ".join(
                f"{i} (row {row})" for i, row in zip(damage.examples, damage.row_ids, strict=True)
            )
        lines.append(f"damaged: {damage.file}: {damage.what}{named}")
    if len(found.damage) > _MOST_LINES:
        lines.append(f"… and {len(found.damage) - _MOST_LINES} more; --json lists all")
    if found.missing_shards:
        lines.append(
            f"missing: {counted(len(found.missing_shards), 'shard')}, from"
            f" {found.missing_shards[0]} on"
        )
    if found.strays:
        lines.append(
            "leftover files, harmless:"
            f" {', '.join(found.strays[:5])}{' …' if len(found.strays) > 5 else ''}"
        )
    if not found.whole and deep:
        lines.append(
            "not compared with the live teacher, because the cache is damaged or incomplete"
        )
    if compared:
        lines.append(
            f"live teacher ({compared.compute_dtype}) on "
            f"{counted(compared.examples, 'example')}, {counted(compared.tokens, 'token')}:"
        )
        lines += [
            f"  layer {layer.layer}: relative error {layer.relative_error:.2e}, worst example"
            f" {layer.worst_example} (row {layer.worst_row_id}) {layer.worst_relative_error:.2e},"
            f" allowed {layer.tolerance:.2g}"
            for layer in compared.layers
        ]
    if found.whole:
        lines.append(f"complete; content digest {found.content_digest}")
    return "\n".join(lines)
