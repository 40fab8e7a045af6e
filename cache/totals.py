"""Totals over the shards of a cache."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from cache.errors import DamagedCacheError
from cache.manifest import Manifest
from cache.sealed_json import canonical_json
from cache.shard.record import ShardRecord


def bits_per_value(manifest: Manifest, records: Sequence[ShardRecord]) -> dict[int, float]:
    """Return the stored bits per value of each layer; 0 if there are no values."""
    values = max(1, sum(record.stored_tokens for record in records) * manifest.hidden_size)
    return {
        layer: 8 * sum(record.layer_bytes.get(layer, 0) for record in records) / values
        for layer in manifest.layers
    }


def content_digest_of(records: Sequence[ShardRecord]) -> str:
    """Return the SHA-256 of the shards' digests, in order."""
    return hashlib.sha256(canonical_json([record.digest for record in records])).hexdigest()


def require_same_totals(root: Path, manifest: Manifest, records: Sequence[ShardRecord]) -> None:
    """Refuse a complete journal whose totals differ from the manifest's.

    Raises:
        DamagedCacheError: they differ.
    """
    examples = sum(len(record.row_ids) + len(record.non_finite) for record in records)
    tokens = sum(record.tokens + sum(record.non_finite.values()) for record in records)
    if (examples, tokens) != (manifest.examples, manifest.tokens):
        raise DamagedCacheError(
            f"{root}: the journal counts {examples} examples and {tokens} tokens, "
            f"the manifest {manifest.examples} and {manifest.tokens}; do not use this cache"
        )
