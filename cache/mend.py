"""Putting a damaged cache back as it was: what can be done without the teacher, and room for what cannot."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cache.errors import CacheError
from cache.example import Example
from cache.files import fsync_tree, require_local
from cache.journal import JOURNAL_NAME, Journal, ShardRecord, scan_journal
from cache.lock import WriterLock
from cache.manifest import ATTACHMENTS, Manifest, read_manifest
from cache.verify import Verification, verify_cache
from cache.writer import store_shard


class CacheMender:
    """A damaged cache, and its damaged shards one by one replaced. Get one from `mend_cache`.

    Attributes:
        manifest: what the cache is to hold.
        found: what was wrong at the beginning.
        records: what the journal knows of each shard, damaged ones too; nothing of those whose line is lost.
    """

    def __init__(self, root: Path, manifest: Manifest, found: Verification, records: Mapping[int, ShardRecord]) -> None:
        self.root, self.manifest, self.found, self.records = root, manifest, found, dict(records)

    @property
    def shards(self) -> list[int]:
        """Shards to be made again."""
        return self.found.damaged_shards()

    @property
    def attachments_damaged(self) -> bool:
        """Whether an attached file is to be put back."""
        return any(damage.file.startswith(f"{ATTACHMENTS}/") for damage in self.found.damage)

    def put_back_attachments(self, attachments: Path) -> None:
        """Replace the attached files.

        Raises:
            DamagedCacheError: they are not byte for byte those that were attached.
        """
        shutil.rmtree(self.root / ATTACHMENTS, ignore_errors=True)
        shutil.copytree(attachments, self.root / ATTACHMENTS)
        fsync_tree(self.root / ATTACHMENTS)
        self.manifest.check_attachments(self.root)

    def replace(
        self,
        shard: int,
        examples: Sequence[Example],
        *,
        non_finite: Mapping[str, int],
        provenance: Mapping[str, Any],
        other_content: bool = False,
    ) -> bool:
        """Write a shard anew, durably, and say so in the journal; returns whether it holds what the lost one held.

        Raises:
            OtherContentError: it does not, and `other_content` is not allowed; nothing has been changed.
        """
        lost = self.records.get(shard)
        expected = lost.digest if lost else None
        stored = store_shard(self.root, self.manifest, shard, examples, None if other_content else expected)
        self.records[shard] = replace(stored, non_finite=dict(non_finite), provenance=dict(provenance))
        Journal(self.manifest, self.records, []).write(self.root)
        return expected in (None, stored.digest)


@contextlib.contextmanager
def mend_cache(root: Path, progress: Callable[[int], None] = lambda size: None) -> Iterator[CacheMender]:
    """Look at every byte of a cache, put manifest and journal back from each other's copy, and go on alone.

    Args:
        root: the cache's folder.
        progress: called with the bytes just checked.

    Raises:
        CacheError: there is no cache, another process writes to it, or manifest and journal are both lost.
    """
    require_local(root)
    if not (root / JOURNAL_NAME).is_file():
        read_manifest(root)  # says what is not there
    with WriterLock(root):
        found = verify_cache(root, progress)
        journal = scan_journal(root)
        try:
            manifest = read_manifest(root)
        except CacheError:
            manifest = journal.manifest  # type: ignore[assignment]  # verify_cache has found one of the two
            manifest.write(root)
        if journal.manifest not in (None, manifest):
            raise CacheError(f"{root}: manifest and journal belong to different caches; put back the one that was replaced")
        if journal.damage:
            Journal(manifest, journal.records, []).write(root)
        yield CacheMender(root, manifest, found, journal.records)
