"""Sizes of planned shards, and the disk space that an extract needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cache.codecs import packing_named
from cache.journal import scan_journal
from cache.manifest import Manifest
from cache.upkeep.space import reclaimable_bytes, room_needed, shard_size
from pipeline.extract.plan import ExtractPlan


def shard_sizes(
    plan: ExtractPlan,
    manifest: Manifest,
    shards: Iterable[int],
    bits: Mapping[int, float] | None = None,
) -> list[int]:
    """Return the bytes of each shard; exact if the codecs have a fixed rate.

    Args:
        plan: has the examples.
        manifest: names the container and the codecs.
        shards: their numbers.
        bits: per value, of each layer whose codec has no fixed rate; None: estimated from its
            requirement.
    """
    if bits is None:
        bits = {layer: required.expected_bits for layer, required in plan.requirements.items()}
    return [_shard_size(plan, manifest, shard, bits) for shard in shards]


def _shard_size(
    plan: ExtractPlan, manifest: Manifest, shard: int, bits: Mapping[int, float]
) -> int:
    examples = plan.examples_of(shard)
    return shard_size(
        manifest,
        plan.segment_lengths(shard),
        [example.row_id for example in examples],
        sum(len(example.text.encode()) for example in examples),
        bits,
    )


def required_bytes(
    plan: ExtractPlan,
    manifest: Manifest,
    missing: Sequence[int],
    bits: Mapping[int, float] | None = None,
) -> int:
    """Return the bytes that missing shards need beyond the files that interrupted writers left.

    Args:
        plan, manifest, bits: as for `shard_sizes`.
        missing: numbers of the shards.
    """
    folder = plan.location.folder
    records = scan_journal(folder).records if folder.is_dir() else {}
    published = (name for record in records.values() for name in record.files)
    examples = sum(len(plan.shards[shard]) for shard in missing)
    head = 2 * manifest.hidden_size * len(plan.vocabulary) if plan.settings.keep_head else 0
    shards = room_needed(shard_sizes(plan, manifest, missing, bits), examples)
    return shards + head - reclaimable_bytes(folder, published)


def require_packable(plan: ExtractPlan) -> None:
    """Raise if a shard is too large for its codec to pack.

    Raises:
        CacheError: names the option to change.
    """
    names = {requirement.name for requirement in plan.requirements.values()}
    for packing in map(packing_named, sorted(names)):
        if packing.spec(1, 1) is None:
            for shard in range(len(plan.shards)):
                packing.require_packable(plan.segment_lengths(shard), plan.manifest.hidden_size)
