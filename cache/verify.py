"""Looking at every byte of a cache: is it what was written, and can it be hidden states?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.codecs import codec_named
from cache.errors import CacheError, DamagedCacheError
from cache.files import damage_of, files_below
from cache.journal import JOURNAL_NAME, ShardRecord, scan_journal
from cache.manifest import MANIFEST_NAME, Manifest, read_manifest
from cache.open_shard import OpenShard, shard_name
from cache.shard import content_digest, example_checksums
from cache.store import content_digest_of, require_same_totals

_STATES_AT_A_TIME = 4096
"""Tokens whose hidden states are decoded at a time."""


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
        shards, examples, tokens, bytes: what is published and was looked at; bytes of the shards' files.
        missing_shards: planned and not published.
        damage: all that is wrong with what is published.
        strays: files in the cache's folder that are not part of it, such as those of a writer that died.
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
        return sorted({damage.shard for damage in self.damage if damage.shard is not None} | set(self.missing_shards))


def verify_cache(root: Path, progress: Callable[[int], None] = lambda size: None) -> Verification:
    """Check manifest, journal, attachments and all shards of a cache, finished or not; goes on after damage.

    Args:
        root: the cache's folder.
        progress: called with the bytes just checked.

    Raises:
        CacheError: there is no cache, or neither its manifest nor the copy in its journal can be read.
    """
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
    first = 0
    for record in records:
        damage += _shard_damage(root, manifest, record, first)
        first += len(record.row_ids)
        progress(record.bytes)
    missing = sorted(set(range(manifest.shards)) - journal.records.keys())
    damage += contradictions(root, manifest, records)
    whole = not damage and not missing
    return Verification(
        cache=str(root),
        whole=whole,
        shards=len(records),
        examples=first,
        tokens=sum(record.tokens for record in records),
        bytes=sum(record.bytes for record in records),
        missing_shards=missing,
        damage=damage,
        strays=_strays(root, manifest, records),
        content_digest=content_digest_of(records) if whole else None,
    )


def _shard_damage(root: Path, manifest: Manifest, record: ShardRecord, first: int) -> Iterator[Damage]:
    """Everything that is wrong with a shard whose first example has the index `first`."""

    def found(file: str, what: str, positions: Sequence[int] = range(len(record.row_ids))) -> Damage:
        row_ids = [record.row_ids[position] for position in positions]
        return Damage(file, what, record.shard, [first + position for position in positions], row_ids)

    if not record.files and not record.row_ids:
        return
    name = shard_name(manifest, record.shard)
    if not (root / name).exists():
        yield found(name, "missing")
        return
    try:
        checked = {file: damage_of(root, file, size, checksum) for file, (size, checksum) in record.files.items()}
    except CacheError as error:  # a name that leaves the cache
        yield found(JOURNAL_NAME, str(error))
        return
    broken = {file: what for file, what in checked.items() if what}
    try:
        opened = OpenShard(root, manifest, record, check=False)
        arrays = {array: opened.array(array) for array in opened.names}
    except CacheError as error:
        yield from (found(file, what) for file, what in broken.items() or {name: str(error)}.items())
        return
    changed = np.flatnonzero(example_checksums(arrays) != record.checksums).tolist()
    for file, what in broken.items():
        yield found(file, what, changed or range(len(record.row_ids)))
    if not broken and (changed or content_digest(arrays) != record.digest):
        yield found(name, "its arrays are not the ones that the journal tells of", changed or range(len(record.row_ids)))
    for what, positions in _impossible(manifest, arrays):
        yield found(name, what, positions)


def _impossible(manifest: Manifest, arrays: dict[str, npt.NDArray[Any]]) -> Iterator[tuple[str, list[int]]]:
    """What no extract can have written, with the positions of the examples in the shard."""
    codec, starts = codec_named(manifest.codec), arrays["offsets"]

    def examples_of(tokens: npt.NDArray[Any]) -> list[int]:
        return sorted(set((np.searchsorted(starts, tokens, side="right") - 1).tolist()))

    ids, mask = arrays["input_ids"], arrays["loss_mask"]
    if len(strange := np.flatnonzero((ids < 0) | (ids >= manifest.vocab_size))):
        yield f"token ids outside the vocabulary of {manifest.vocab_size}", examples_of(strange)
    if len(strange := np.flatnonzero(mask > 1)):
        yield "loss mask values other than 0 and 1", examples_of(strange)
    for name, stored in arrays.items():
        if name.startswith("hidden_states/"):
            bad = [
                start + np.flatnonzero(~np.isfinite(codec.decode(stored[start : start + _STATES_AT_A_TIME])).all(axis=1))
                for start in range(0, len(stored), _STATES_AT_A_TIME)
            ]
            if len(strange := np.concatenate(bad)):
                yield f"{name}: values that are not finite", examples_of(strange)


def contradictions(root: Path, manifest: Manifest, records: Sequence[ShardRecord]) -> Iterator[Damage]:
    """What does not fit together in a journal whose lines are whole."""
    rows = Counter(row_id for record in records for row_id in (*record.row_ids, *record.non_finite))
    if twice := [row_id for row_id, count in rows.items() if count > 1]:
        yield Damage(JOURNAL_NAME, f"{len(twice)} row ids stand in it twice", row_ids=twice)
    if len(records) == manifest.shards:
        try:
            require_same_totals(root, manifest, records)
        except DamagedCacheError as error:
            yield Damage(JOURNAL_NAME, str(error))


def _strays(root: Path, manifest: Manifest, records: Sequence[ShardRecord]) -> list[str]:
    known = {MANIFEST_NAME, JOURNAL_NAME, ".lock", *(attached.name for attached in manifest.attachments)}
    known |= {name for record in records for name in record.files}
    held = (path.relative_to(root).as_posix() for path in files_below(root))
    return [name for name in held if name not in known]
