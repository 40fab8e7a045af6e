"""Summary of a cache from its manifest and journal, without opening shards."""

from __future__ import annotations

from collections import Counter
from typing import Any

from cache.errors import CacheError
from cache.journal import NON_FINITE, read_journal, scan_journal
from cache.manifest import read_manifest
from cache.storage import LocationLike, storage_location
from cache.totals import bits_per_value, content_digest_of


def published_bytes(where: LocationLike) -> int:
    """Return the size of all published shards with readable records."""
    root = storage_location(where).read().folder
    if not root.is_dir():
        return 0
    return sum(record.bytes for record in scan_journal(root).records.values())


def summarise_cache(where: LocationLike) -> dict[str, Any]:
    """Describe a cache, complete or not.

    Raises:
        CacheError: there is no cache, or its manifest or journal is damaged.
        OSError: an object store cannot be reached.
    """
    location = storage_location(where)
    with location.reporting_address():
        root = location.read().folder
        manifest = read_manifest(root)
        records = read_journal(root, manifest)
    tokens = sum(record.tokens for record in records)
    stored = sum(record.stored_tokens for record in records)
    size = sum(record.bytes for record in records) + manifest.fit_bytes
    bits = bits_per_value(manifest, records)
    complete = len(records) == manifest.shards
    planned = manifest.provenance.get("left_out", {})
    if not isinstance(planned, dict) or not all(type(count) is int for count in planned.values()):
        raise CacheError(f"{location.address}: its manifest has no valid counts of left-out rows")
    left_out = Counter(planned)
    left_out[NON_FINITE] += sum(len(record.non_finite) for record in records)
    return {
        "cache": location.address,
        "complete": complete,
        "format": manifest.format,
        "codec": manifest.codec,
        "layers": list(manifest.layers),
        "hidden_size": manifest.hidden_size,
        "vocab_size": manifest.vocab_size,
        "examples": sum(len(record.row_ids) for record in records),
        "left_out": dict(+left_out),
        "tokens": tokens,
        "stored_tokens": stored,
        "shared_prefixes": sum(len(record.prefix_numbers) for record in records),
        "bytes": size,
        "bytes_per_token": round(size / tokens, 2) if tokens else None,
        "bits_per_value": round(sum(bits.values()) / len(bits), 3) if stored else None,
        "bits_per_value_of_layers": {str(layer): round(rate, 3) for layer, rate in bits.items()}
        if stored
        else None,
        "shards": len(records),
        "planned_shards": manifest.shards,
        "planned_examples": manifest.examples,
        "identity": manifest.identity,
        "provenance": manifest.provenance,
        "content_digest": content_digest_of(records) if complete else None,
    }
