"""Reading a cache: a sequence of examples, wherever their shards lie."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.codecs import codec_named
from cache.errors import CacheError, DamagedCacheError
from cache.example import Example
from cache.files import check_file, inside
from cache.formats import format_named
from cache.identity import Identity
from cache.journal import ShardRecord, read_journal
from cache.manifest import Manifest, read_manifest
from cache.sealed_json import canonical_json
from cache.shard import OpenShard
from cache.writer import ATTACHMENTS, SHARDS

_OPEN_SHARDS = 64
"""Shards kept open at a time in each process."""


class Cache(Sequence[Example]):
    """A whole cache. `len(cache)` examples; `cache[i]` is an `Example` with all cached layers.

    A shard's files are compared with their checksums when it is first opened in a process: what has changed since it
    was written raises `DamagedCacheError` and is never returned as numbers.
    """

    def __init__(self, root: Path, manifest: Manifest, records: Sequence[ShardRecord]) -> None:
        self.root, self.manifest, self._records = root, manifest, list(records)
        self._format, self._codec = format_named(manifest.format), codec_named(manifest.codec)
        self._first = np.cumsum([0, *(len(record.row_ids) for record in self._records)])
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._checked: set[int] = set()
        self._process = os.getpid()

    @property
    def layers(self) -> tuple[int, ...]:
        """Cached teacher layers, in the order they were asked for."""
        return self.manifest.layers

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states, `d_teacher`."""
        return self.manifest.hidden_size

    @property
    def identity(self) -> Identity:
        """Everything that the cached numbers depend on."""
        return self.manifest.identity

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """`[len(self)]` tokens of each example, known without opening a shard."""
        return np.concatenate([record.lengths for record in self._records] or [np.zeros(0, np.int64)])

    @property
    def row_ids(self) -> list[str]:
        """The row id of each example, known without opening a shard."""
        return [row_id for record in self._records for row_id in record.row_ids]

    @property
    def bytes(self) -> int:
        """Size on disk of all shards."""
        return sum(record.bytes for record in self._records)

    @property
    def content_digest(self) -> str:
        """One SHA-256 for all that the shards hold: the same for the same content, however often its writing stopped."""
        return content_digest_of(self._records)

    def attachment(self, name: str) -> Path:
        """The folder of attached files of that name, such as `tokenizer`; its bytes were checked on opening.

        Raises:
            CacheError: nothing of that name is attached.
        """
        folder = inside(self.root, f"{ATTACHMENTS}/{name}")
        if not folder.is_dir():
            raise CacheError(f"{self.root}: has no attachment {name!r}")
        return folder

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, index: Any) -> Any:
        """One example by its index, or a list of them by a slice.

        Raises:
            IndexError: there is no such example.
            DamagedCacheError: the shard that holds it is damaged.
        """
        if isinstance(index, slice):
            return [self.example(i) for i in range(*index.indices(len(self)))]
        return self.example(index)

    def __iter__(self) -> Iterator[Example]:
        return (self.example(i) for i in range(len(self)))

    def example(self, index: int, layers: Sequence[int] | None = None) -> Example:
        """One example with only the layers named: what is not asked for is not read."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"example {index} of a cache of {len(self)}")
        index %= len(self)
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        record, position = self._records[shard], index - int(self._first[shard])
        example = self._shard(shard).example(position, self.layers if layers is None else layers)
        if example.row_id != record.row_ids[position] or len(example) != record.lengths[position]:
            raise DamagedCacheError(
                f"{self.root}: shard {record.shard}, example {position} is not the one that the journal names"
            )
        return example

    def _shard(self, index: int) -> OpenShard:
        if self._process != os.getpid():  # after a fork: the handles belong to the parent
            self._open, self._process = OrderedDict(), os.getpid()
        if index not in self._open:
            record = self._records[index]
            if index not in self._checked:
                for name, (size, sha256) in record.files.items():
                    check_file(self.root, name, size, sha256)
                self._checked.add(index)
            path = inside(self.root, f"{SHARDS}/{record.shard:06d}{self._format.suffix}")
            self._open[index] = OpenShard(path, self._format.open(path), self._codec, self.layers, self.hidden_size)
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(index)
        return self._open[index]

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all open shards."""
        while self._open:
            self._open.popitem()[1].close()


def content_digest_of(records: Sequence[ShardRecord]) -> str:
    """SHA-256 over the digests of the shards, in their order."""
    return hashlib.sha256(canonical_json([record.digest for record in records])).hexdigest()


def open_cache(root: str | Path) -> Cache:
    """Open a whole cache for reading.

    Raises:
        CacheError: the folder is not a cache, not a complete one, or its manifest, journal or attachments are damaged.
    """
    root = Path(root)
    manifest = read_manifest(root)
    records = read_journal(root)
    if len(records) != manifest.shards or any(record.shard != number for number, record in enumerate(records)):
        raise CacheError(
            f"{root}: not complete ({len(records)} of {manifest.shards} shards); run the same `extract` again to go on with it"
        )
    examples, tokens = sum(len(r.row_ids) for r in records), sum(int(r.lengths.sum()) for r in records)
    if (examples, tokens) != (manifest.examples, manifest.tokens):
        raise CacheError(
            f"{root}: the journal counts {examples} examples and {tokens} tokens, "
            f"the manifest {manifest.examples} and {manifest.tokens}; do not use this cache"
        )
    manifest.check_attachments(root)
    return Cache(root, manifest, records)
