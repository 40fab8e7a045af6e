"""Looking at every byte of a cache: is it what was written, and can it be hidden states?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.codecs import Segments
from cache.errors import CacheError, DamagedCacheError
from cache.files import damage_of
from cache.journal import scan_journal
from cache.manifest import Manifest, read_manifest
from cache.names import JOURNAL_NAME, MANIFEST_NAME
from cache.shard.layout import content_digest, segment_checksums
from cache.shard.prefixes import Prefixes
from cache.shard.reader import StoredShard, shard_name
from cache.shard.record import ShardRecord
from cache.storage import Hold, Place, Where, place_of
from cache.totals import content_digest_of, require_same_totals


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong.

    Attributes:
        file: name relative to the cache.
        what: what is wrong with it.
        shard: the shard it belongs to.
        examples: indices in the cache of the examples that it concerns.
        row_ids: their row ids.
    """

    file: str
    what: str
    shard: int | None = None
    examples: list[int] = field(default_factory=list)
    row_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        whole: nothing is missing and nothing is damaged.
        shards, examples, tokens, bytes: what is published and was looked at; bytes of the shards'
            files.
        missing_shards: planned and not published.
        damage: all that is wrong with what is published.
        strays: files in the cache's folder that are not part of it, such as those of a writer that
            died.
        content_digest: of a whole cache.
    """

    cache: str
    whole: bool
    shards: int
    examples: int
    tokens: int
    bytes: int
    missing_shards: list[int]
    damage: list[Damage]
    strays: list[str]
    content_digest: str | None

    def damaged_shards(self) -> list[int]:
        """Shards that are to be written anew: damaged or missing."""
        return sorted(
            {damage.shard for damage in self.damage if damage.shard is not None}
            | set(self.missing_shards)
        )


def verify_cache(where: Where, progress: Callable[[int], None] = lambda size: None) -> Verification:
    """Check manifest, journal, attachments and all shards of a cache, finished or not; goes on
    after damage.

    Args:
        where: the cache's folder, or its place in an object store, from which all bytes are brought
            anew.
        progress: called with the bytes just checked.

    Raises:
        CacheError: there is no cache, or neither its manifest nor the copy in its journal can be
            read.
        OSError: an object store cannot be reached.
    """
    with place_of(where).apart() as place, place.naming_errors():
        place.refresh()
        return _verified(place, progress)


def _verified(place: Place, progress: Callable[[int], None]) -> Verification:
    root = place.folder
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
    examples = _Examples(records)
    for record in records:
        with _brought(place, record):
            damage += _shard_damage(root, manifest, record, examples)
        progress(record.bytes)
    missing = sorted(set(range(manifest.shards)) - journal.records.keys())
    damage += contradictions(root, manifest, records)
    whole = not damage and not missing
    return Verification(
        cache=place.address,
        whole=whole,
        shards=len(records),
        examples=len(examples.row_ids),
        tokens=sum(record.tokens for record in records),
        bytes=sum(record.bytes for record in records),
        missing_shards=missing,
        damage=damage,
        strays=_strays(place, manifest, records),
        content_digest=content_digest_of(records) if whole else None,
    )


def _brought(place: Place, record: ShardRecord) -> Hold:
    """A shard's files are there while this is held, where they are to be had."""
    try:
        return place.hold(record)
    except DamagedCacheError:  # what is wrong is told of the files
        return Hold()


class _Examples:
    """All examples that the journal tells of, and which of them read which segment."""

    def __init__(self, records: Sequence[ShardRecord]) -> None:
        self.row_ids = [row_id for record in records for row_id in record.row_ids]
        self._first = {
            record.shard: first
            for record, first in zip(records, _running_total(records), strict=True)
        }
        after = {
            number: before
            for record in records
            for number, before in zip(
                record.prefix_numbers.tolist(), record.prefixes.tolist(), strict=False
            )
        }
        self._users: dict[int, list[int]] = {}
        own = (
            number
            for record in records
            for number in record.prefixes[len(record.prefix_numbers) :].tolist()
        )
        for index, number in enumerate(own):
            while number in after:
                self._users.setdefault(number, []).append(index)
                number = after[number]

    def reading(self, record: ShardRecord, segments: Sequence[int]) -> list[int]:
        """Indices of the examples that read one of a shard's segments: its own, or one that begins
        with a prefix stored there."""
        numbers = record.prefix_numbers.tolist()
        own = {
            self._first[record.shard] + segment - len(numbers)
            for segment in segments
            if segment >= len(numbers)
        }
        return sorted(
            own.union(
                *(
                    self._users.get(numbers[segment], [])
                    for segment in segments
                    if segment < len(numbers)
                )
            )
        )


def _running_total(records: Sequence[ShardRecord]) -> Iterator[int]:
    return (
        accumulate((len(record.row_ids) for record in records[:-1]), initial=0)
        if records
        else iter(())
    )


def _shard_damage(
    root: Path, manifest: Manifest, record: ShardRecord, examples: _Examples
) -> Iterator[Damage]:
    """Everything that is wrong with a shard."""
    every = range(len(record.stored))

    def found(file: str, what: str, segments: Sequence[int] = every) -> Damage:
        indices = examples.reading(record, segments)
        return Damage(
            file, what, record.shard, indices, [examples.row_ids[index] for index in indices]
        )

    if not record.files and not record.row_ids:
        return
    name = shard_name(manifest, record.shard)
    if not (root / name).exists():
        yield found(name, "missing")
        return
    try:
        checked = {
            file: damage_of(root, file, size, checksum)
            for file, (size, checksum) in record.files.items()
        }
    except CacheError as error:  # a name that leaves the cache
        yield found(JOURNAL_NAME, str(error))
        return
    broken = {file: what for file, what in checked.items() if what}
    try:
        opened = StoredShard(root, manifest, record, check=False)
        arrays = {array: opened.array(array) for array in opened.names}
    except CacheError as error:
        yield from (
            found(file, what) for file, what in broken.items() or {name: str(error)}.items()
        )
        return
    changed = np.flatnonzero(segment_checksums(arrays, opened.packed) != record.checksums).tolist()
    for file, what in broken.items():
        yield found(file, what, changed or every)
    if not broken and (changed or content_digest(arrays) != record.digest):
        yield found(name, "its arrays are not the ones that the journal tells of", changed or every)
    for what, segments in _impossible(manifest, arrays, opened.packed):
        yield found(name, what, segments)


def _impossible(
    manifest: Manifest, arrays: dict[str, npt.NDArray[Any]], packed: Mapping[str, Segments]
) -> Iterator[tuple[str, list[int]]]:
    """What no extract can have written, with the segments of the shard that it is in."""
    starts = arrays["offsets"]

    def segments_of(tokens: npt.NDArray[Any]) -> list[int]:
        return sorted(set((np.searchsorted(starts, tokens, side="right") - 1).tolist()))

    ids, mask = arrays["input_ids"], arrays["loss_mask"]
    if len(strange := np.flatnonzero((ids < 0) | (ids >= manifest.vocab_size))):
        yield f"token ids outside the vocabulary of {manifest.vocab_size}", segments_of(strange)
    if len(strange := np.flatnonzero(mask > 1)):
        yield "loss mask values other than 0 and 1", segments_of(strange)
    for name, segments in packed.items():
        not_finite, unreadable = [], []
        for segment in range(len(segments)):
            try:
                if not segments.read(segment).finite:
                    not_finite.append(segment)
            except DamagedCacheError:
                unreadable.append(segment)
        if not_finite:
            yield f"{name}: values that are not finite", not_finite
        if unreadable:
            yield f"{name}: states that cannot be decoded", unreadable


def contradictions(
    root: Path, manifest: Manifest, records: Sequence[ShardRecord]
) -> Iterator[Damage]:
    """What does not fit together in a journal whose lines are whole."""
    rows = Counter(row_id for record in records for row_id in (*record.row_ids, *record.non_finite))
    if twice := [row_id for row_id, count in rows.items() if count > 1]:
        yield Damage(JOURNAL_NAME, f"{len(twice)} row ids stand in it twice", row_ids=twice)
    if len(records) == manifest.shards:
        try:
            Prefixes(records)
            require_same_totals(root, manifest, records)
        except DamagedCacheError as error:
            yield Damage(JOURNAL_NAME, str(error))


def _strays(place: Place, manifest: Manifest, records: Sequence[ShardRecord]) -> list[str]:
    known = {
        MANIFEST_NAME,
        JOURNAL_NAME,
        ".lock",
        *(attached.name for attached in manifest.attachments),
    }
    known |= {name for record in records for name in record.files}
    return [name for name in place.names() if name not in known]
