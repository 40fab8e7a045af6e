"""The journal: the manifest's copy, then one line for each published shard, and with it the index
of examples."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import CacheError, DamagedCacheError
from cache.files import MEND, inside, write_atomically
from cache.manifest import Manifest, parse_manifest
from cache.names import JOURNAL_NAME
from cache.sealed_json import seal, unseal

NON_FINITE = "states not finite"
"""Why an example is left out in the end."""
_LONGEST_LINE = 256 << 20
_MOST_SHARDS = 1 << 22
_MOST = 1 << 40
_COUNTS = ("lengths", "stored", "prefix_numbers", "prefixes")


@dataclass(frozen=True)
class ShardRecord:
    """What is known of a published shard without opening it.

    Attributes:
        shard: its number, from 0.
        files: for each file (name relative to the cache) its size in bytes and its checksum, the
            128-bit XXH3.
        digest: SHA-256 of the arrays it holds, the same in every format.
        row_ids: the row id of each example, in order.
        text_bytes: size of their texts together.
        lengths: `[examples]` int64, tokens of each example as it is read.
        stored: `[pieces]` int64, tokens of each piece: first the shared prefixes stored here, then
            each example's own.
        prefix_numbers: `[prefixes]` int64, numbers of the shared prefixes stored here.
        prefixes: `[pieces]` int64, number of the shared prefix that comes before a piece; -1 where
            nothing does.
        checksums: `[pieces]` uint64, the 64-bit XXH3 of each piece's stored bytes: tells which one
            is damaged.
        state_bytes: size of each layer's stored hidden states, by the layer's name.
        non_finite: examples left out because the teacher gave no finite states: tokens by row id.
        provenance: how it was made; recorded, not compared.
    """

    shard: int
    files: dict[str, tuple[int, str]]
    digest: str
    row_ids: list[str]
    text_bytes: int
    lengths: npt.NDArray[np.int64]
    stored: npt.NDArray[np.int64]
    prefix_numbers: npt.NDArray[np.int64]
    prefixes: npt.NDArray[np.int64]
    checksums: npt.NDArray[np.uint64]
    state_bytes: dict[str, int]
    non_finite: dict[str, int] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def line(self) -> bytes:
        """The record as a line of the journal."""
        plain = {
            "files": {name: list(entry) for name, entry in self.files.items()},
            **{name: getattr(self, name).tolist() for name in _COUNTS},
            "checksums": self.checksums.astype(">u8").tobytes().hex(),
        }
        return seal(asdict(self) | plain) + b"\n"

    @property
    def bytes(self) -> int:
        """Size of the shard on disk."""
        return sum(size for size, _ in self.files.values())

    @property
    def tokens(self) -> int:
        """Tokens of its examples as they are read."""
        return int(self.lengths.sum())

    @property
    def stored_tokens(self) -> int:
        """Tokens that are stored here: a shared prefix counts once."""
        return int(self.stored.sum())

    @property
    def layer_bytes(self) -> dict[int, int]:
        """Size of each layer's stored hidden states."""
        return {int(layer): size for layer, size in self.state_bytes.items()}


class JournalWriter:
    """The journal of a cache that is being written: each record is durable when `append`
    returns."""

    def __init__(self, root: Path) -> None:
        """Open the journal and cut off a last line that its writer did not finish."""
        self._path = inside(root, JOURNAL_NAME)
        self._stream = self._path.open("r+b", buffering=0)
        content = self._path.read_bytes()
        self._stream.truncate(content.rfind(b"\n") + 1)

    def require_in_place(self) -> None:
        """Make sure that what is written next will lie beside this journal.

        Raises:
            FileNotFoundError: the cache's folder has gone, been unmounted or replaced since it was
                opened.
        """
        if not self._path.exists() or not os.path.samestat(
            self._path.stat(), os.fstat(self._stream.fileno())
        ):
            raise FileNotFoundError(
                0,
                "the cache's folder has vanished or been replaced while it was written",
                str(self._path),
            )

    def line_of(self, record: ShardRecord) -> bytes:
        """The line that `append` would write.

        Raises:
            CacheError: the shard holds too many examples for a line.
        """
        line = record.line()
        if len(line) > _LONGEST_LINE:
            raise CacheError(
                f"shard {record.shard}: too many examples ({len(record.row_ids)}); choose smaller"
                " shards"
            )
        return line

    def append(self, record: ShardRecord) -> None:
        """Publish a shard.

        Raises:
            CacheError: it holds too many examples for a line.
            OSError: the line cannot be written; what stood there before stands there still.
        """
        line = self.line_of(record)
        self.require_in_place()
        end = self._stream.seek(0, os.SEEK_END)
        try:
            if self._stream.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            os.fsync(self._stream.fileno())
        except OSError as error:
            self._stream.truncate(end)
            raise OSError(
                error.errno, error.strerror, str(self._path)
            ) from error  # fsync itself names nothing

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()


@dataclass(frozen=True)
class Journal:
    """A journal as it was found.

    Attributes:
        manifest: the copy of the manifest in its first line; None where that is damaged.
        records: the shards' records that could be read, by shard.
        damage: one phrase for each line that could not be read.
    """

    manifest: Manifest | None
    records: dict[int, ShardRecord]
    damage: list[str]

    def write(self, root: Path) -> None:
        """Replace the journal by this one, atomically."""
        assert self.manifest is not None
        records = [self.records[shard] for shard in sorted(self.records)]
        write_atomically(
            root / JOURNAL_NAME,
            _head(self.manifest) + b"".join(record.line() for record in records),
        )


def shard_of_line(line: bytes) -> int | None:
    """Which shard a line of a journal tells of; None where it tells of none."""
    try:
        shard = unseal(line).get("shard")
    except ValueError:
        return None
    return shard if type(shard) is int else None


def begin_journal(root: Path, manifest: Manifest) -> None:
    """Write a journal without shards."""
    write_atomically(root / JOURNAL_NAME, _head(manifest))


def scan_journal(root: Path) -> Journal:
    """Read what can be read of a journal, and say what cannot.

    A last line without its end was being written when its writer died: that shard was not
    published."""
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
            record = _record(content)
            if record.shard in records:
                raise ValueError(f"names shard {record.shard} a second time")
            if manifest is not None and record.shard >= manifest.shards:
                raise ValueError(f"names shard {record.shard} of {manifest.shards}")
        except (ValueError, TypeError, KeyError, OverflowError, CacheError) as error:
            damage.append(f"line {number} is damaged ({error})")
        else:
            records[record.shard] = record
    if manifest is None and not damage:
        damage.append("its first line is missing")
    return Journal(manifest, records, damage)


def read_journal(root: Path, manifest: Manifest) -> list[ShardRecord]:
    """Read the records of all published shards, in the order of their numbers.

    Raises:
        DamagedCacheError: a line is damaged, a shard stands in it twice, or it belongs to another
            manifest.
    """
    journal = scan_journal(root)
    if journal.damage:
        raise DamagedCacheError(f"{root / JOURNAL_NAME}: {journal.damage[0]}; {MEND}")
    if journal.manifest != manifest:
        raise DamagedCacheError(
            f"{root / JOURNAL_NAME}: belongs to another cache than {root / 'manifest.json'}"
        )
    return [journal.records[shard] for shard in sorted(journal.records)]


def _head(manifest: Manifest) -> bytes:
    return seal(manifest.as_json()) + b"\n"


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while line := stream.readline(_LONGEST_LINE):
            if line.endswith(b"\n"):
                yield line[:-1]
            elif len(line) == _LONGEST_LINE:
                raise CacheError(
                    f"{path}: a line of more than {_LONGEST_LINE} bytes; do not use this cache"
                )


def _record(content: dict[str, Any]) -> ShardRecord:
    kinds: dict[str, type] = {"shard": int, "digest": str, "row_ids": list, "text_bytes": int}
    for name, kind in (
        kinds | dict.fromkeys(("files", "non_finite", "provenance", "state_bytes"), dict)
    ).items():
        if type(content[name]) is not kind:
            raise ValueError(f"{name} is not a {kind.__name__}")
    counts = {name: np.asarray(content[name] or np.zeros(0, np.int64)) for name in _COUNTS}
    checksums = np.frombuffer(bytes.fromhex(content["checksums"]), ">u8").astype(np.uint64)
    files = {name: (size, checksum) for name, (size, checksum) in content["files"].items()}
    whole = (
        all(
            each.dtype == np.int64 and each.ndim == 1 and (np.abs(each) < _MOST).all()
            for each in counts.values()
        )
        and _fit_together(len(content["row_ids"]), len(checksums), **counts)
        and all(
            type(size) is int and 0 <= size < _MOST and _is_number(layer)
            for layer, size in content["state_bytes"].items()
        )
        and 0 <= content["shard"] <= _MOST_SHARDS
        and 0 <= content["text_bytes"] < _MOST
        and all(type(row_id) is str for row_id in content["row_ids"])
        and all(type(size) is int and type(checksum) is str for size, checksum in files.values())
        and all(type(tokens) is int and tokens > 0 for tokens in content["non_finite"].values())
    )
    if not whole:
        raise ValueError("not a shard record")
    "".join(
        [*content["row_ids"], *content["non_finite"], *files]
    ).encode()  # a ValueError where they are no text
    return ShardRecord(**{**content, **counts, "files": files, "checksums": checksums})


def _fit_together(
    examples: int,
    checksums: int,
    lengths: npt.NDArray[np.int64],
    stored: npt.NDArray[np.int64],
    prefix_numbers: npt.NDArray[np.int64],
    prefixes: npt.NDArray[np.int64],
) -> bool:
    """Whether counts can be those of one shard; a prefix comes after one of a smaller number, so
    none comes after itself."""
    first = len(prefix_numbers)
    return bool(
        len(lengths) == examples
        and first + examples == len(stored) == len(prefixes) == checksums
        and (lengths >= 1).all()
        and (stored >= 0).all()
        and (prefix_numbers >= 0).all()
        and (np.diff(prefix_numbers) > 0).all()
        and (prefixes >= -1).all()
        and (prefixes[:first] < prefix_numbers).all()
    )


def _is_number(text: str) -> bool:
    return (
        len(text) <= 8 and text.removeprefix("-").isascii() and text.removeprefix("-").isdecimal()
    )
