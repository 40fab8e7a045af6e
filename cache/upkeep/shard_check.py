"""Check the bytes of a shard against its record, and its values against their valid ranges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.codecs import Segments
from cache.errors import CacheError, DamagedCacheError
from cache.files import damage_of
from cache.manifest import Manifest
from cache.names import JOURNAL_NAME
from cache.shard.digests import content_digest, segment_checksums
from cache.shard.reader import StoredShard, shard_name
from cache.shard.record import ShardRecord
from cache.upkeep.affected_examples import AffectedExamples
from cache.upkeep.verification import Damage


def shard_damage(
    root: Path, manifest: Manifest, record: ShardRecord, examples: AffectedExamples
) -> Iterator[Damage]:
    """Yield all damage of a shard whose files are in the cache's local folder."""
    all_segments = range(len(record.stored))

    def damage(file: str, what: str, segments: Sequence[int] = all_segments) -> Damage:
        indices = examples.reading(record, segments)
        row_ids = [examples.row_ids[index] for index in indices]
        return Damage(file, what, record.shard, indices, row_ids)

    if not record.files and not record.row_ids:
        return
    name = shard_name(manifest, record.shard)
    if not (root / name).exists():
        yield damage(name, "missing")
        return
    try:
        checked = {
            file: damage_of(root, file, size, checksum)
            for file, (size, checksum) in record.files.items()
        }
    except CacheError as error:  # a name that leaves the cache
        yield damage(JOURNAL_NAME, str(error))
        return
    broken = {file: what for file, what in checked.items() if what}
    try:
        shard = StoredShard(root, manifest, record, check=False)
        arrays = {array: shard.array(array) for array in shard.names}
    except CacheError as error:
        for file, what in (broken or {name: str(error)}).items():
            yield damage(file, what)
        return
    differs = segment_checksums(arrays, shard.packed) != record.checksums
    changed = np.flatnonzero(differs).tolist() or all_segments
    for file, what in broken.items():
        yield damage(file, what, changed)
    if not broken and (differs.any() or content_digest(arrays) != record.digest):
        yield damage(name, "its arrays are not the ones that the journal lists", changed)
    for what, segments in _impossible_values(manifest, arrays, shard.packed):
        yield damage(name, what, segments)


def _impossible_values(
    manifest: Manifest, arrays: dict[str, npt.NDArray[Any]], packed: Mapping[str, Segments]
) -> Iterator[tuple[str, list[int]]]:
    """Yield values that no extract writes, with the segments that contain them."""
    starts = arrays["offsets"]

    def segments_of(tokens: npt.NDArray[Any]) -> list[int]:
        return sorted(set((np.searchsorted(starts, tokens, side="right") - 1).tolist()))

    ids, mask = arrays["input_ids"], arrays["loss_mask"]
    if len(outside := np.flatnonzero((ids < 0) | (ids >= manifest.vocab_size))):
        yield f"token ids outside the vocabulary of {manifest.vocab_size}", segments_of(outside)
    if len(not_boolean := np.flatnonzero(mask > 1)):
        yield "loss mask values other than 0 and 1", segments_of(not_boolean)
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
