"""Writing a cache: begin or resume it, then publish its shards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cache.beginning import begun_manifest, require_nothing_published
from cache.journal import read_journal
from cache.location import require_cache_location
from cache.manifest import Manifest
from cache.names import MANIFEST_NAME
from cache.shard.content import ShardContent
from cache.shard.record import ShardRecord
from cache.shard.writer import store_shard
from cache.storage import LocationLike, StorageLocation, storage_location
from cache.storage.write_session import PublishSession


class CacheWriter:
    """Publishes the shards of one cache; `write_cache` returns it."""

    def __init__(self, session: PublishSession) -> None:
        self._session, self.manifest = session, session.manifest

    @property
    def published(self) -> dict[int, ShardRecord]:
        """Records of the published shards, by shard number."""
        return self._session.published

    def missing_shards(self) -> list[int]:
        """Return the numbers of the shards that are not published yet."""
        return [shard for shard in range(self.manifest.shards) if shard not in self.published]

    def publish(
        self,
        shard: int,
        content: ShardContent,
        *,
        non_finite: Mapping[str, int] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> ShardRecord:
        """Store a shard durably and publish it; it exists only after this returns.

        Args:
            shard: its number.
            content: its content; empty if all examples were left out.
            non_finite: tokens by row id of examples left out for states that are not finite.
            provenance: how the shard was made; recorded, not compared.

        Raises:
            CacheError: another process has taken over.
            OSError: the disk is full, or the location has vanished; published shards are unchanged.
        """
        record = store_shard(
            self._session, self.manifest, shard, content, non_finite or {}, provenance or {}
        )
        self.record(record)
        return record

    def record(self, stored: ShardRecord) -> None:
        """Publish a shard that this or another process has stored at the cache's location.

        Raises:
            CacheError: another process has taken over, or has published the shard.
            DamagedCacheError: its files are missing or have another size than recorded.
            OSError: the disk is full, or the location has vanished.
        """
        self._session.publish(stored)


@contextlib.contextmanager
def write_cache(where: LocationLike, wanted: Manifest, attachments: Path) -> Iterator[CacheWriter]:
    """Begin or resume a cache, with the exclusive right to write.

    Args:
        where: the cache's location; a folder is created if needed.
        wanted: the planned cache. Its `attachments` field is filled in here.
        attachments: a folder of files to attach, copied when the cache is begun.

    Raises:
        CacheError: the location has other files or another cache, or another process is writing.
    """
    location = storage_location(where)
    require_resumable(location, wanted)
    with (
        location.reporting_address(),
        location.write() as session,
        session.publish(wanted, attachments) as publishing,
    ):
        yield CacheWriter(publishing)


def require_resumable(location: StorageLocation, wanted: Manifest) -> list[int]:
    """Check, changing nothing, that a cache can be begun or resumed; return its missing shards.

    Raises:
        CacheError: the location has other files, or another cache.
    """
    with location.reporting_address():
        begun, root = require_cache_location(location), location.folder
        if not (root / MANIFEST_NAME).exists():
            if begun:
                require_nothing_published(root)  # checked again under the lock
            return list(range(wanted.shards))
        records = read_journal(root, begun_manifest(root, wanted))
        location.check_sizes(
            {name: entry for record in records for name, entry in record.files.items()}
        )
    return sorted(set(range(wanted.shards)) - {record.shard for record in records})
