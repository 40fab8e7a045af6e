"""Putting a damaged cache back as it was: what can be done without the teacher, and room for what
cannot."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cache.errors import CacheError, DamagedCacheError
from cache.files import bytes_below, damage_of, inside, remove, write_atomically
from cache.journal import Journal, scan_journal
from cache.manifest import Manifest, read_manifest
from cache.names import ATTACHMENTS, JOURNAL_NAME, MANIFEST_NAME, SHARDS
from cache.shard.content import ShardContent
from cache.shard.reader import shard_name
from cache.shard.record import ShardRecord
from cache.shard.writer import restore_record, store_shard
from cache.storage import Place, Where, place_of
from cache.upkeep.verify import Verification, contradictions, verify_cache


class CacheMender:
    """A damaged cache, and its damaged shards one by one replaced. Get one from `mend_cache`.

    Attributes:
        manifest: what the cache is to hold.
        found: what was wrong at the beginning.
        records: what the journal knows of each shard, damaged ones too; nothing of those that are
            lost altogether.
        restored: shards whose lost journal lines were told from the shards themselves.
        shards: those that are to be made again.
    """

    def __init__(
        self,
        place: Place,
        manifest: Manifest,
        found: Verification,
        records: Mapping[int, ShardRecord],
    ) -> None:
        self.place, self.root = place, place.folder
        self.manifest, self.found, self.records = manifest, found, dict(records)
        self.restored: list[int] = []
        for shard in found.missing_shards:
            if (record := self._restored(shard)) is not None:
                self.records[shard] = record
                self.restored.append(shard)
        self.shards = [shard for shard in found.damaged_shards() if shard not in self.restored]

    def _restored(self, shard: int) -> ShardRecord | None:
        try:
            with self.place.hold_named(shard_name(self.manifest, shard)):
                return restore_record(self.root, self.manifest, shard)
        except DamagedCacheError:  # there is nothing there
            return None

    @property
    def damaged_attachments(self) -> list[str]:
        """Names of the attached files that are to be put back, or removed because nobody attached
        them."""
        return [
            damage.file for damage in self.found.damage if damage.file.startswith(f"{ATTACHMENTS}/")
        ]

    def bytes_of(self, shard: int) -> int:
        """What stands on the disk where the shard belongs: room that replacing it gives back."""
        return bytes_below(self.root / shard_name(self.manifest, shard))

    def put_back_attachments(self, attachments: Path) -> None:
        """Replace the damaged attached files, and no others.

        Raises:
            CacheError: a file is not byte for byte the one that was attached; nothing has been
                touched.
        """
        attached = {file.name: file for file in self.manifest.attachments}
        wanted = [attached[name] for name in self.damaged_attachments if name in attached]
        for file in wanted:
            name = file.name.removeprefix(f"{ATTACHMENTS}/")
            if damage_of(attachments, name, file.bytes, file.checksum):
                raise CacheError(
                    f"{self.root / file.name}: cannot be made again byte for byte (saved by another"
                    " version?); put it back from a copy, or use the library versions that `cache"
                    " inspect --json` names"
                )
        for name in self.damaged_attachments:
            if name not in attached:
                remove(self.root / name)
                self.place.remove([name])
        for file in wanted:
            target = inside(self.root, file.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(
                target, (attachments / file.name.removeprefix(f"{ATTACHMENTS}/")).read_bytes()
            )
        self.place.keep([file.name for file in wanted])

    def replace(
        self,
        shard: int,
        content: ShardContent,
        *,
        non_finite: Mapping[str, int],
        provenance: Mapping[str, Any],
        other_content: bool = False,
    ) -> bool | None:
        """Write a shard anew, durably, and say so in the journal.

        Returns:
            Whether it holds what the lost one held; None where nothing is known of the lost one.

        Raises:
            OtherContentError: it does not, and `other_content` is not allowed; nothing has been
                changed.
        """
        lost = self.records.get(shard)
        expected = None if lost is None else lost.digest
        inside(self.root, SHARDS).mkdir(exist_ok=True)
        digest = None if other_content else expected
        self.records[shard] = store_shard(
            self.place, self.manifest, shard, content, non_finite, provenance, digest
        )
        self.write_journal()
        return None if expected is None else self.records[shard].digest == expected

    def write_journal(self) -> None:
        """Replace the journal by what is known now."""
        Journal(self.manifest, self.records, []).write(self.root)
        self.place.keep([JOURNAL_NAME])
        self.place.settle()

    def require_consistent(self) -> None:
        """Refuse what making shards again has not mended.

        Raises:
            DamagedCacheError: the lines of the journal contradict each other or the manifest.
        """
        records = [self.records[shard] for shard in sorted(self.records)]
        for damage in contradictions(self.root, self.manifest, records):
            raise DamagedCacheError(
                f"{self.root / JOURNAL_NAME}: {damage.what}; this cannot be mended, extract into a"
                " new cache"
            )


@contextlib.contextmanager
def mend_cache(
    where: Where, progress: Callable[[int], None] = lambda size: None
) -> Iterator[CacheMender]:
    """Look at every byte of a cache, put manifest and journal back from what has a copy of them,
    and go on alone.

    Args:
        where: the cache's folder, or its place in an object store.
        progress: called with the bytes just checked.

    Raises:
        CacheError: there is no cache, another process writes to it, or manifest and journal are
            both lost.
    """
    place = place_of(where)
    root = place.folder
    with contextlib.ExitStack() as held:
        held.enter_context(place.naming_errors())
        place.refresh()
        if not (root / JOURNAL_NAME).is_file():
            read_manifest(root)  # says what is not there
        held.enter_context(place.alone())
        found = verify_cache(place, progress)
        journal = scan_journal(root)
        try:
            manifest = read_manifest(root)
        except CacheError:
            if journal.manifest is None:
                raise
            manifest = journal.manifest
            manifest.write(root)
            place.keep([MANIFEST_NAME])
        if journal.manifest not in (None, manifest):
            raise CacheError(
                f"{root}: manifest and journal belong to different caches; put back the one that"
                " was replaced"
            )
        mender = CacheMender(place, manifest, found, journal.records)
        if journal.damage or mender.restored:
            mender.write_journal()
        yield mender
