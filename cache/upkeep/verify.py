"""Verify a cache: compare every byte with its checksum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cache.errors import CacheError, DamagedCacheError
from cache.journal import scan_journal
from cache.manifest import Manifest, read_manifest
from cache.names import JOURNAL_NAME, MANIFEST_NAME
from cache.shard.prefixes import Prefixes
from cache.shard.record import ShardRecord
from cache.storage import LocationLike, Pin, ReadSession, StorageLocation, storage_location
from cache.totals import content_digest_of, require_same_totals
from cache.upkeep.affected_examples import AffectedExamples
from cache.upkeep.shard_check import shard_damage
from cache.upkeep.verification import Damage, Verification


def verify_cache(
    where: LocationLike, progress: Callable[[int], None] = lambda size: None
) -> Verification:
    """Check manifest, journal, attachments and all shards of a cache, complete or not.

    Args:
        where: the cache's location; from an object store all bytes are downloaded again.
        progress: called with the bytes just checked.

    Raises:
        CacheError: there is no cache, or neither the manifest nor its copy is readable.
        OSError: an object store cannot be reached.
    """
    location = storage_location(where)
    with location.read_uncached() as session, session.location.reporting_address():
        return _verify(session, progress)


def _verify(session: ReadSession, progress: Callable[[int], None]) -> Verification:
    root = session.folder
    damage: list[Damage] = []
    journal = scan_journal(root)
    damage += [Damage(JOURNAL_NAME, what) for what in journal.damage]
    try:
        manifest = read_manifest(root)
    except CacheError:
        if journal.manifest is None:
            raise
        manifest = journal.manifest
        damage.append(Damage(MANIFEST_NAME, "damaged or missing; the journal has a copy"))
    if journal.manifest not in (None, manifest):
        damage.append(Damage(JOURNAL_NAME, "belongs to another cache's manifest"))
    damage += [Damage(name, what) for name, what in manifest.damaged_attachments(root).items()]
    records = [journal.records[shard] for shard in sorted(journal.records)]
    examples = AffectedExamples(records)
    for record in records:
        with _pin_if_there(session, record):
            damage += shard_damage(root, manifest, record, examples)
        progress(record.bytes)
    missing = sorted(set(range(manifest.shards)) - journal.records.keys())
    damage += contradictions(root, manifest, records)
    whole = not damage and not missing
    return Verification(
        cache=session.location.address,
        whole=whole,
        shards=len(records),
        examples=len(examples.row_ids),
        tokens=sum(record.tokens for record in records),
        bytes=sum(record.bytes for record in records),
        missing_shards=missing,
        damage=damage,
        strays=_strays(session.location, manifest, records),
        content_digest=content_digest_of(records) if whole else None,
    )


def _pin_if_there(session: ReadSession, record: ShardRecord) -> Pin:
    try:
        return session.pin(record)
    except DamagedCacheError:  # reported as damage of the files
        return Pin()


def contradictions(
    root: Path, manifest: Manifest, records: Sequence[ShardRecord]
) -> Iterator[Damage]:
    """Yield contradictions in a journal whose lines are intact."""
    rows = Counter(row_id for record in records for row_id in (*record.row_ids, *record.non_finite))
    if repeated := [row_id for row_id, count in rows.items() if count > 1]:
        yield Damage(JOURNAL_NAME, f"{len(repeated)} row ids occur twice", row_ids=repeated)
    if len(records) == manifest.shards:
        try:
            Prefixes(records)
            require_same_totals(root, manifest, records)
        except DamagedCacheError as error:
            yield Damage(JOURNAL_NAME, str(error))


def _strays(
    location: StorageLocation, manifest: Manifest, records: Sequence[ShardRecord]
) -> list[str]:
    expected = {MANIFEST_NAME, JOURNAL_NAME, ".lock"}
    expected |= {attached.name for attached in manifest.attachments}
    expected |= {name for record in records for name in record.files}
    return [name for name in location.file_names() if name not in expected]
