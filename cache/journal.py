"""The journal: a copy of the manifest, then one line per published shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cache.errors import CacheError, DamagedCacheError
from cache.files import REPAIR, inside, write_atomically
from cache.manifest import Manifest, parse_manifest
from cache.names import JOURNAL_NAME, MANIFEST_NAME
from cache.sealed_json import seal, unseal
from cache.shard.record import ShardRecord, parse_record

NON_FINITE = "states not finite"
"""Reason in reports for examples that were left out."""
LONGEST_LINE = 256 << 20


@dataclass(frozen=True)
class Journal:
    """A journal as read from disk, damaged or not.

    Attributes:
        manifest: the copy of the manifest in the first line; None if that line is damaged.
        records: readable shard records, by shard number.
        damage: one phrase per unreadable line.
    """

    manifest: Manifest | None
    records: dict[int, ShardRecord]
    damage: list[str]

    def write(self, root: Path) -> None:
        """Replace the journal on disk by this one, atomically."""
        assert self.manifest is not None
        records = [self.records[shard] for shard in sorted(self.records)]
        write_atomically(
            root / JOURNAL_NAME,
            _first_line(self.manifest) + b"".join(record.line() for record in records),
        )


def shard_of_line(line: bytes) -> int | None:
    """Return the shard number that a line of the journal records; None if it is damaged."""
    try:
        shard = unseal(line).get("shard")
    except ValueError:
        return None
    return shard if type(shard) is int else None


def begin_journal(root: Path, manifest: Manifest) -> None:
    """Write a journal without shards."""
    write_atomically(root / JOURNAL_NAME, _first_line(manifest))


def scan_journal(root: Path) -> Journal:
    """Read the intact lines, and list the damaged ones.

    A last line without a newline was cut off when its writer died, so its shard is not published.
    """
    path = inside(root, JOURNAL_NAME)
    if not path.is_file():
        return Journal(None, {}, ["missing"])
    manifest, records, damage = None, {}, []
    for number, line in enumerate(_lines(path), start=1):
        try:
            content = unseal(line)
            if number == 1:
                manifest = parse_manifest(content, path)
                continue
            record = parse_record(content)
            if record.shard in records:
                raise ValueError(f"lists shard {record.shard} twice")
            if manifest is not None and record.shard >= manifest.shards:
                raise ValueError(f"lists shard {record.shard} of {manifest.shards}")
        except (ValueError, TypeError, KeyError, OverflowError, CacheError) as error:
            damage.append(f"line {number} is damaged ({error})")
        else:
            records[record.shard] = record
    if manifest is None and not damage:
        damage.append("its first line is missing")
    return Journal(manifest, records, damage)


def read_journal(root: Path, manifest: Manifest) -> list[ShardRecord]:
    """Return the records of all published shards, in the order of their numbers.

    Raises:
        DamagedCacheError: a line is damaged, repeats a shard, or belongs to another manifest.
    """
    journal = scan_journal(root)
    if journal.damage:
        raise DamagedCacheError(f"{root / JOURNAL_NAME}: {journal.damage[0]}; {REPAIR}")
    if journal.manifest != manifest:
        raise DamagedCacheError(
            f"{root / JOURNAL_NAME}: is not of the same cache as {root / MANIFEST_NAME}"
        )
    return [journal.records[shard] for shard in sorted(journal.records)]


def _first_line(manifest: Manifest) -> bytes:
    return seal(manifest.as_json()) + b"\n"


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while line := stream.readline(LONGEST_LINE):
            if line.endswith(b"\n"):
                yield line[:-1]
            elif len(line) == LONGEST_LINE:
                raise CacheError(
                    f"{path}: a line of more than {LONGEST_LINE} bytes; do not use this cache"
                )
