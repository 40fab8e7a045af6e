"""Reading a cache: a sequence of examples."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.codec_fits import read_codecs
from cache.codecs import Codec
from cache.errors import CacheError, DamagedCacheError
from cache.example import CodedExample, Example
from cache.example_index import ExampleIndex
from cache.files import inside
from cache.identity import Identity
from cache.journal import read_journal
from cache.manifest import Manifest, read_manifest
from cache.names import ATTACHMENTS
from cache.shard.content import ShardContent
from cache.shard.pool import ShardPool
from cache.shard.prefix_cache import PrefixCache
from cache.shard.prefixes import Prefixes, StoredPrefix
from cache.shard.record import ShardRecord
from cache.shard.segment import join_segments
from cache.shard.whole import read_content
from cache.storage import LocationLike, ReadSession, storage_location
from cache.totals import bits_per_value, content_digest_of, require_same_totals


class Cache(Sequence[Example]):
    """A complete cache: `cache[i]` is an `Example` with all cached layers.

    A shard's files are compared with their checksums when it is first opened, once for this process
    and those forked from it: changed bytes raise `DamagedCacheError`.
    """

    def __init__(
        self,
        session: ReadSession,
        manifest: Manifest,
        records: Sequence[ShardRecord],
        codecs: Mapping[int, Codec],
    ) -> None:
        self.location, self.manifest = session.location, manifest
        self.records, self.codecs = list(records), dict(codecs)
        self.prefixes = Prefixes(self.records)
        self._index = ExampleIndex(self.records)
        self._shards = ShardPool(session, manifest, self.records)
        self._prefix_cache = PrefixCache(self._shards.read_segment, self.prefixes)

    @property
    def address(self) -> str:
        """The address that the user gave."""
        return self.location.address

    @property
    def layers(self) -> tuple[int, ...]:
        """Cached teacher layers, in the order of `extract --layers`."""
        return self.manifest.layers

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states, `d_teacher`."""
        return self.manifest.hidden_size

    @property
    def identity(self) -> Identity:
        """Everything that the cached numbers depend on."""
        return self.manifest.identity

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """`[len(self)]` tokens of each example, from the journal."""
        return np.concatenate(
            [record.lengths for record in self.records] or [np.zeros(0, np.int64)]
        )

    @cached_property
    def row_ids(self) -> list[str]:
        """The row id of each example, from the journal."""
        return [row_id for record in self.records for row_id in record.row_ids]

    @property
    def bytes(self) -> int:
        """Size on disk of all shards and codec fits."""
        return sum(record.bytes for record in self.records) + self.manifest.fit_bytes

    @property
    def bits_per_value(self) -> dict[int, float]:
        """Stored bits per value, by layer."""
        return bits_per_value(self.manifest, self.records)

    @property
    def content_digest(self) -> str:
        """SHA-256 of the content of all shards, independent of interruptions."""
        return content_digest_of(self.records)

    def attachment(self, name: str) -> Path:
        """Return the folder of an attachment, such as `tokenizer`; checked by `open_cache`.

        Raises:
            CacheError: there is no such attachment.
        """
        folder = inside(self.location.folder, f"{ATTACHMENTS}/{name}")
        if not folder.is_dir():
            raise CacheError(f"{self.address}: has no attachment {name!r}")
        return folder

    def has_attachment(self, name: str) -> bool:
        """Return whether the cache has an attachment of this name."""
        return inside(self.location.folder, f"{ATTACHMENTS}/{name}").is_dir()

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: Any) -> Any:
        """Return the example at an index, or a list of examples for a slice.

        Raises:
            IndexError: there is no such example.
            DamagedCacheError: its shard is damaged.
        """
        if isinstance(index, slice):
            return [self.example(i) for i in range(*index.indices(len(self)))]
        return self.example(index)

    def __iter__(self) -> Iterator[Example]:
        return (self.example(i) for i in range(len(self)))

    def example(self, index: int, layers: Sequence[int] | None = None) -> Example:
        """Return one example; read only the given layers, all by default.

        Raises:
            CacheError: a layer is not cached.
            IndexError: there is no such example.
            DamagedCacheError: its shard is damaged; names shard and example.
        """
        coded = self.coded_example(index, layers)
        states = {
            layer: self.codecs[layer].decode(values)
            for layer, values in coded.hidden_states.items()
        }
        return Example(coded.row_id, coded.input_ids, coded.loss_mask, states)

    def coded_example(self, index: int, layers: Sequence[int] | None = None) -> CodedExample:
        """Return one example with coded hidden states, to be decoded elsewhere.

        Threads may call this concurrently. Raises as `example`.
        """
        shard, position = self._index.locate(index)
        record = self.records[shard]
        segment = len(record.prefix_numbers) + position
        wanted = tuple(self.layers if layers is None else layers)
        if missing := set(wanted) - set(self.layers):
            cached = ", ".join(map(str, self.layers))
            raise CacheError(f"{self.address}: layer {min(missing)} is not cached, only {cached}")
        with self._naming_example(shard, position):
            whole = self._shards.read_segment(shard, segment, wanted)
            prefix = self._prefix_cache.read(int(record.prefixes[segment]), wanted)
        if prefix is not None:
            whole = join_segments([prefix, whole])  # copies, so the kept prefix cannot be changed
        return CodedExample(
            record.row_ids[position], whole.input_ids, whole.loss_mask, whole.hidden_states
        )

    def text(self, index: int) -> str:
        """Return the text stored with an example, without reading its states.

        Raises:
            IndexError: there is no such example.
            DamagedCacheError: its shard is damaged; names shard and example.
        """
        shard, position = self._index.locate(index)
        with self._naming_example(shard, position), self._shards.reading(shard) as opened:
            return opened.text(position)

    @contextlib.contextmanager
    def _naming_example(self, shard: int, position: int) -> Iterator[None]:
        """Name the example in errors raised in the block."""
        try:
            with self.location.reporting_address():
                yield
        except CacheError as error:
            row_id = self.records[shard].row_ids[position]
            example = f"shard {shard}, example {self._index.number(shard, position)} (row {row_id})"
            raise DamagedCacheError(f"{example}: {error}") from error

    def shards_of(self, indices: Iterable[int]) -> list[int]:
        """Return the shard of each example, given non-negative indices."""
        return self._index.shards_of(indices)

    def prefixes_of(self, index: int) -> list[StoredPrefix]:
        """Return the shared prefixes of an example, in order."""
        shard, position = self._index.locate(index)
        record = self.records[shard]
        segment = len(record.prefix_numbers) + position
        return self.prefixes.path(int(record.prefixes[segment]))

    def shard_content(self, shard: int, unpacked: Collection[int] = ()) -> ShardContent:
        """Return the content of a shard: stored arrays, or coded states for `unpacked` layers.

        Raises:
            DamagedCacheError: the shard is damaged.
        """
        return read_content(self._shards, shard, self.manifest, self.records[shard], unpacked)

    def prefetch(self, shards: Sequence[int]) -> None:
        """Download shards in the background, in this order; replaces earlier requests."""
        self._shards.prefetch(shards)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the storage location; another process opens the cache itself."""
        return open_cache, (self.location,)

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all open shards."""
        self._shards.close()


def open_cache(where: LocationLike) -> Cache:
    """Open a complete cache for reading: a folder, or `s3://bucket/prefix`.

    Raises:
        CacheError: there is no complete cache, or its manifest, journal or attachments are damaged.
        OSError: an object store cannot be reached.
    """
    location = storage_location(where)
    with location.reporting_address():
        session = location.read()
        root = session.folder
        manifest = read_manifest(root)
        records = read_journal(root, manifest)
        if len(records) != manifest.shards:
            done = f"{len(records)} of {manifest.shards} shards"
            raise CacheError(f"{root}: not complete ({done}); run the same `extract` to resume it")
        require_same_totals(root, manifest, records)
        manifest.check_attachments(root)
        return Cache(session, manifest, records, read_codecs(root, manifest))
