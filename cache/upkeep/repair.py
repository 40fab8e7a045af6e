"""Repair a cache as far as that needs no teacher, and replace shards and attachments."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cache.errors import CacheError, DamagedCacheError
from cache.files import bytes_below, damage_of, inside
from cache.journal import Journal, scan_journal
from cache.manifest import Manifest, read_manifest
from cache.names import ATTACHMENTS, JOURNAL_NAME, SHARDS
from cache.shard.content import ShardContent
from cache.shard.reader import shard_name
from cache.shard.record import ShardRecord
from cache.shard.writer import restore_record, store_shard
from cache.storage import LocationLike, ReadSession, storage_location
from cache.storage.write_session import RepairSession, WriteSession
from cache.upkeep.verification import Verification
from cache.upkeep.verify import contradictions, verify_cache


class CacheRepairer:
    """Replaces the damaged parts of a cache; `repair_cache` returns it.

    Attributes:
        location, root: the cache's storage location and local folder.
        manifest: of the cache.
        verification: the state of the cache before the repair.
        records: all readable records by shard number, including those of damaged shards.
        restored: shards whose lost journal lines were restored from the shards themselves.
        shards: damaged and missing shards that are not restored.
    """

    def __init__(
        self,
        reading: ReadSession,
        session: RepairSession,
        manifest: Manifest,
        verification: Verification,
        records: Mapping[int, ShardRecord],
    ) -> None:
        self.location, self.root = reading.location, reading.folder
        self._session = session
        self.manifest, self.verification, self.records = manifest, verification, dict(records)
        self.restored: list[int] = []
        for shard in verification.missing_shards:
            if (record := self._restored(reading, shard)) is not None:
                self.records[shard] = record
                self.restored.append(shard)
        self.shards = [
            shard for shard in verification.damaged_shards() if shard not in self.restored
        ]

    def _restored(self, reading: ReadSession, shard: int) -> ShardRecord | None:
        try:
            with reading.pin_unrecorded(shard_name(self.manifest, shard)):
                return restore_record(self.root, self.manifest, shard)
        except DamagedCacheError:  # the shard is missing
            return None

    @property
    def damaged_attachments(self) -> list[str]:
        """Names of damaged attached files, and of files that were never attached."""
        names = (damage.file for damage in self.verification.damage)
        return [name for name in names if name.startswith(f"{ATTACHMENTS}/")]

    def bytes_of(self, shard: int) -> int:
        """Return the bytes on disk that replacing the shard frees."""
        return bytes_below(self.root / shard_name(self.manifest, shard))

    def replace_attachments(self, attachments: Path) -> None:
        """Replace the damaged attached files, and delete those that were never attached.

        Args:
            attachments: folder with the original files.

        Raises:
            CacheError: a file is not byte for byte the original; nothing was changed.
        """
        attached = {file.name: file for file in self.manifest.attachments}
        damaged = [attached[name] for name in self.damaged_attachments if name in attached]
        for file in damaged:
            name = file.name.removeprefix(f"{ATTACHMENTS}/")
            if damage_of(attachments, name, file.bytes, file.checksum):
                raise CacheError(
                    f"{self.root / file.name}: cannot be reproduced byte for byte (saved by another"
                    " version?); restore it from a copy, or use the library versions listed by"
                    " `cache inspect --json`"
                )
        for name in self.damaged_attachments:
            if name not in attached:
                self._session.delete_attachment(name)
        for file in damaged:
            source = attachments / file.name.removeprefix(f"{ATTACHMENTS}/")
            self._session.put_attachment(file.name, source.read_bytes())

    def replace(
        self,
        shard: int,
        content: ShardContent,
        *,
        non_finite: Mapping[str, int],
        provenance: Mapping[str, Any],
        other_content: bool = False,
    ) -> bool | None:
        """Replace a shard and its line of the journal.

        Returns:
            Whether its content is that of the lost shard; None if that is unknown.

        Raises:
            OtherContentError: the content differs, and `other_content` is False; nothing changed.
        """
        lost = self.records.get(shard)
        expected = None if lost is None else lost.digest
        inside(self.root, SHARDS).mkdir(exist_ok=True)
        digest = None if other_content else expected
        self.records[shard] = store_shard(
            self._session, self.manifest, shard, content, non_finite, provenance, digest
        )
        self._session.put_journal(Journal(self.manifest, self.records, []))
        return None if expected is None else self.records[shard].digest == expected

    def require_consistent(self) -> None:
        """Refuse contradictions that replacing shards cannot resolve.

        Raises:
            DamagedCacheError: lines of the journal contradict each other or the manifest.
        """
        records = [self.records[shard] for shard in sorted(self.records)]
        for damage in contradictions(self.root, self.manifest, records):
            raise DamagedCacheError(
                f"{self.root / JOURNAL_NAME}: {damage.what}; this cannot be repaired; extract"
                " into a new cache"
            )


@contextlib.contextmanager
def repair_cache(
    where: LocationLike, progress: Callable[[int], None] = lambda size: None
) -> Iterator[CacheRepairer]:
    """Verify a cache and restore manifest and journal from their copies, as its only writer.

    Args:
        where: the cache's location.
        progress: called with the bytes just checked.

    Raises:
        CacheError: there is no cache, another process is writing, or both manifest and journal are
            lost.
    """
    location = storage_location(where)
    with location.reporting_address():
        root = location.read().folder
        if not (root / JOURNAL_NAME).is_file():
            read_manifest(root)  # raises if there is no cache
        with location.write() as writing:
            yield _restore_index(writing, verify_cache(location, progress))


def _restore_index(writing: WriteSession, verification: Verification) -> CacheRepairer:
    """Restore the manifest from the journal, and the journal from the shards."""
    root, session = writing.folder, writing.repair()
    journal = scan_journal(root)
    try:
        manifest = read_manifest(root)
    except CacheError:
        if journal.manifest is None:
            raise
        manifest = journal.manifest
        session.put_manifest(manifest)
    if journal.manifest not in (None, manifest):
        raise CacheError(
            f"{root}: manifest and journal belong to different caches; restore the one that was"
            " replaced"
        )
    repairer = CacheRepairer(writing.reading, session, manifest, verification, journal.records)
    if journal.damage or repairer.restored:
        session.put_journal(Journal(manifest, repairer.records, []))
    return repairer
