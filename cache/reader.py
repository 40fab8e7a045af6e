"""Reading a cache: a sequence of examples, wherever their shards lie."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.codecs import Codec
from cache.codecs.fit_file import fit_name, identity_of, read_fit
from cache.errors import CacheError, DamagedCacheError
from cache.example import CodedExample, Example
from cache.files import MEND, inside
from cache.identity import Identity
from cache.journal import read_journal
from cache.manifest import Manifest, read_manifest
from cache.names import ATTACHMENTS, FITS
from cache.shard.content import ShardContent
from cache.shard.pool import ShardPool
from cache.shard.prefix_cache import CodedSegment, PrefixCache, joined
from cache.shard.prefixes import Prefixes, StoredPrefix
from cache.shard.record import ShardRecord
from cache.storage import Place, Where, place_of
from cache.totals import bits_per_value, content_digest_of, require_same_totals


class Cache(Sequence[Example]):
    """A whole cache. `len(cache)` examples; `cache[i]` is an `Example` with all cached layers.

    Prefixes that examples share are stored once, and put before each of them here.

    A shard's files are compared with their checksums when it is first opened, once for this process
    and those that are
    forked from it: what has changed since it was written raises `DamagedCacheError` and is never
    returned as numbers."""

    def __init__(
        self,
        place: Place,
        manifest: Manifest,
        records: Sequence[ShardRecord],
        codecs: Mapping[int, Codec],
    ) -> None:
        self.place, self.manifest, self.records, self.codecs = (
            place,
            manifest,
            list(records),
            dict(codecs),
        )
        self.prefixes = Prefixes(self.records)
        self._held_prefixes = PrefixCache(self._segment, self.prefixes)
        self._first = [0, *accumulate(len(record.row_ids) for record in self.records)]
        self._shards = ShardPool(place, manifest, self.records)

    @property
    def address(self) -> str:
        """Where it is, as its user names it."""
        return self.place.address

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

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """`[len(self)]` tokens of each example, known without opening a shard."""
        return np.concatenate(
            [record.lengths for record in self.records] or [np.zeros(0, np.int64)]
        )

    @cached_property
    def row_ids(self) -> list[str]:
        """The row id of each example, known without opening a shard."""
        return [row_id for record in self.records for row_id in record.row_ids]

    @property
    def bytes(self) -> int:
        """Size on disk of all shards, and of what their codecs were fitted with."""
        return sum(record.bytes for record in self.records) + self.manifest.fit_bytes

    @property
    def bits_per_value(self) -> dict[int, float]:
        """Bits that a stored value takes in each layer."""
        return bits_per_value(self.manifest, self.records)

    @property
    def content_digest(self) -> str:
        """One SHA-256 for all that the shards hold: the same for the same content, however often
        its writing stopped."""
        return content_digest_of(self.records)

    def attachment(self, name: str) -> Path:
        """The folder of attached files of that name, such as `tokenizer`; its bytes were checked on
        opening.

        Raises:
            CacheError: nothing of that name is attached.
        """
        folder = inside(self.place.folder, f"{ATTACHMENTS}/{name}")
        if not folder.is_dir():
            raise CacheError(f"{self.address}: has no attachment {name!r}")
        return folder

    def has_attachment(self, name: str) -> bool:
        """Whether files of that name are attached."""
        return inside(self.place.folder, f"{ATTACHMENTS}/{name}").is_dir()

    def __len__(self) -> int:
        return self._first[-1]

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
        """One example with only the layers named: what is not asked for is not read.

        Raises:
            CacheError: a layer is not cached.
            IndexError: there is no such example.
            DamagedCacheError: the shard that holds it is damaged; names both.
        """
        coded = self.coded_example(index, layers)
        states = {
            layer: self.codecs[layer].decode(values)
            for layer, values in coded.hidden_states.items()
        }
        return Example(coded.row_id, coded.input_ids, coded.loss_mask, states)

    def coded_example(self, index: int, layers: Sequence[int] | None = None) -> CodedExample:
        """One example whose hidden states are still as their codecs coded them, to be decoded where
        they are needed.

        Threads may call this at the same time.

        Raises:
            as `example`.
        """
        shard, position = self._located(index)
        record = self.records[shard]
        segment = len(record.prefix_numbers) + position
        wanted = tuple(self.layers if layers is None else layers)
        if missing := set(wanted) - set(self.layers):
            raise CacheError(
                f"{self.address}: layer {min(missing)} is not cached, only"
                f" {', '.join(map(str, self.layers))}"
            )
        with self._reading(shard, position):
            own = self._segment(shard, segment, wanted)
            before = self._held_prefixes.read(int(record.prefixes[segment]), wanted)
        whole = (
            own if before is None else joined([before, own])
        )  # always a copy: what is held is never handed out
        return CodedExample(
            record.row_ids[position], whole.input_ids, whole.loss_mask, whole.hidden_states
        )

    def text(self, index: int) -> str:
        """What an example's tokens were made from, as whoever wrote the cache put it; its states
        are not read.

        Raises:
            IndexError: there is no such example.
            DamagedCacheError: the shard that holds it is damaged; names both.
        """
        shard, position = self._located(index)
        with self._reading(shard, position), self._shards.reading(shard) as opened:
            return opened.text(position)

    def _located(self, index: int) -> tuple[int, int]:
        """The shard of an example, and its position there."""
        count = self._first[-1]
        if not -count <= index < count:
            raise IndexError(f"example {index} of a cache of {count}")
        shard = bisect_right(self._first, index % count) - 1
        return shard, index % count - self._first[shard]

    @contextlib.contextmanager
    def _reading(self, shard: int, position: int) -> Iterator[None]:
        """Damage that is found here names the example."""
        try:
            with self.place.naming_errors():
                yield
        except CacheError as error:
            row_id = self.records[shard].row_ids[position]
            raise DamagedCacheError(
                f"shard {shard}, example {self._first[shard] + position} (row {row_id}): {error}"
            ) from error

    def shards_of(self, indices: Iterable[int]) -> list[int]:
        """Which shard holds each of some examples, given by indices from 0 on."""
        return [bisect_right(self._first, index) - 1 for index in indices]

    def path_before(self, index: int) -> list[StoredPrefix]:
        """The shared prefixes that an example begins with, from the first on."""
        shard, position = self._located(index)
        record = self.records[shard]
        segment = len(record.prefix_numbers) + position
        return self.prefixes.path(int(record.prefixes[segment]))

    def shard_content(self, shard: int, unpacked: Collection[int] = ()) -> ShardContent:
        """All that a shard holds, its hidden states as the arrays that are stored; but coded states
        of the layers `unpacked`.

        Raises:
            DamagedCacheError: the shard is damaged.
        """
        record = self.records[shard]
        layers = [layer for layer in self.layers if layer in unpacked]
        try:
            segments = [
                self._segment(shard, segment, layers) for segment in range(len(record.stored))
            ]
            kept = [layer for layer in self.layers if layer not in unpacked]
            packed, texts = {}, []
            if segments:
                with self._shards.reading(shard) as opened:
                    texts = [opened.text(position) for position in range(len(record.row_ids))]
                    packed = {layer: opened.packed_array(layer) for layer in kept}
        except CacheError as error:
            raise DamagedCacheError(f"shard {shard}: {error}") from error
        whole = joined(segments) if segments else None
        empty = [-1] * len(record.row_ids)
        return ShardContent(
            record.row_ids,
            texts,
            record.lengths,
            record.stored,
            np.array([*record.prefix_numbers.tolist(), *empty], np.int64),
            record.prefixes,
            whole.input_ids if whole else np.zeros(0, np.int32),
            whole.loss_mask if whole else np.zeros(0, np.bool_),
            {**packed, **(whole.hidden_states if whole else {})},
        )

    def _segment(self, shard: int, segment: int, layers: Sequence[int]) -> CodedSegment:
        with self._shards.reading(shard) as opened:
            input_ids, loss_mask = opened.tokens(segment)
            return CodedSegment(
                input_ids, loss_mask, {layer: opened.coded(segment, layer) for layer in layers}
            )

    def prefetch(self, shards: Sequence[int]) -> None:
        """Begin to bring shards that will be read soon, the first ones first, in place of those
        asked for before.

        There is nothing to bring where the cache is in a folder.
        """
        self._shards.prefetch(shards)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the cache itself."""
        return open_cache, (self.place,)

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all open shards."""
        self._shards.close()


def open_cache(where: Where) -> Cache:
    """Open a whole cache for reading: a folder, or `s3://bucket/prefix`.

    Raises:
        CacheError: the place is not a cache, not a complete one, or its manifest, journal or
            attachments are damaged.
        OSError: an object store cannot be reached.
    """
    place = place_of(where)
    root = place.folder
    with place.naming_errors():
        place.refresh()
        manifest = read_manifest(root)
        records = read_journal(root, manifest)
        if len(records) != manifest.shards:
            done = f"{len(records)} of {manifest.shards} shards"
            raise CacheError(
                f"{root}: not complete ({done}); run the same `extract` again to go on with it"
            )
        require_same_totals(root, manifest, records)
        manifest.check_attachments(root)
        return Cache(place, manifest, records, read_codecs(root, manifest))


def read_codecs(root: Path, manifest: Manifest) -> dict[int, Codec]:
    """Each layer's codec, fitted as it was when the cache was begun.

    Raises:
        DamagedCacheError: a fit is not the one that the identity names.
    """
    told = manifest.identity.get("codec")
    told, codecs = told if isinstance(told, dict) else {}, {}
    for layer, name in manifest.codec_of.items():
        file = inside(root, f"{ATTACHMENTS}/{FITS}/{fit_name(layer)}")
        codecs[layer] = read_fit(file, name, manifest.hidden_size)
        if identity_of(codecs[layer]) != told.get(str(layer)):
            raise DamagedCacheError(
                f"{root}: layer {layer} is not coded as the cache's identity says; {MEND}"
            )
    return codecs
