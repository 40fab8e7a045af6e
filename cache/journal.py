"""The journal: one line for each published shard, and with it the index of examples."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import CacheError
from cache.sealed_json import seal, unseal

JOURNAL_NAME = "journal.jsonl"


@dataclass(frozen=True)
class ShardRecord:
    """What is known of a published shard without opening it.

    Attributes:
        shard: its number, from 0.
        files: for each file (name relative to the cache) its size in bytes and SHA-256.
        digest: SHA-256 of the arrays it holds, the same in every format.
        row_ids: the row id of each example, in order.
        lengths: `[examples]` int64, tokens of each example.
    """

    shard: int
    files: dict[str, tuple[int, str]]
    digest: str
    row_ids: list[str]
    lengths: npt.NDArray[np.int64]

    @property
    def bytes(self) -> int:
        """Size of the shard on disk."""
        return sum(size for size, _ in self.files.values())


def append_record(root: Path, record: ShardRecord) -> None:
    """Publish a shard: its line is in the journal and durable when this returns."""
    line = json.dumps(seal({**asdict(record), "files": _listed(record.files), "lengths": record.lengths.tolist()}))
    with (root / JOURNAL_NAME).open("ab") as stream:
        stream.write(line.encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_journal(root: Path) -> list[ShardRecord]:
    """Read the records of all published shards, in the order of their numbers.

    A last line without its end was being written when its writer died: that shard was not published.

    Raises:
        CacheError: a whole line is damaged, or a shard stands in it twice.
    """
    path = root / JOURNAL_NAME
    if not path.is_file():
        return []
    *lines, _unfinished = path.read_bytes().split(b"\n")
    records: dict[int, ShardRecord] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = _record(unseal(line))
        except (ValueError, TypeError, KeyError) as error:
            raise CacheError(f"{path}: line {number} is damaged ({error})") from error
        if record.shard in records:
            raise CacheError(f"{path}: line {number} names shard {record.shard} a second time")
        records[record.shard] = record
    return [records[shard] for shard in sorted(records)]


def drop_unfinished_line(root: Path) -> None:
    """Before a journal is continued: cut off a last line that its writer did not finish."""
    path = root / JOURNAL_NAME
    if not path.is_file():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)


def _listed(files: dict[str, tuple[int, str]]) -> dict[str, list[Any]]:
    return {name: list(entry) for name, entry in files.items()}


def _record(content: dict[str, Any]) -> ShardRecord:
    lengths = np.asarray(content["lengths"], np.int64)
    row_ids = content["row_ids"]
    files = {str(name): (int(size), str(sha256)) for name, (size, sha256) in content["files"].items()}
    if lengths.ndim != 1 or len(row_ids) != len(lengths) or (lengths < 1).any():
        raise ValueError("row ids and lengths do not fit together")
    if not isinstance(content["shard"], int) or content["shard"] < 0 or not all(isinstance(row, str) for row in row_ids):
        raise ValueError("not a shard record")
    return ShardRecord(content["shard"], files, str(content["digest"]), row_ids, lengths)
