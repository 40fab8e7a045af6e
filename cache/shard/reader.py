"""Reading a published shard: straight from the bytes of its files, example by example."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.array_spec import ArraySpec
from cache.codecs import CodedStates, Segments, packing_named
from cache.containers import StoredArray, container_named
from cache.errors import DamagedCacheError
from cache.files import check_file, inside
from cache.manifest import Manifest
from cache.names import SHARDS
from cache.shard.content import NO_PREFIX
from cache.shard.layout import array_specs, hidden_states_name, offsets_of
from cache.shard.record import ShardRecord


def shard_name(manifest: Manifest, shard: int) -> str:
    """The name of a shard's file or folder, relative to the cache."""
    return f"{SHARDS}/{shard:06d}{container_named(manifest.format).suffix}"


def record_specs(record: ShardRecord, manifest: Manifest) -> dict[str, ArraySpec]:
    """Shapes and types of a published shard's arrays.

    Raises:
        DamagedCacheError: its record does not tell of all layers.
    """
    if record.layer_bytes.keys() != set(manifest.layers):
        raise DamagedCacheError(
            f"the journal tells of layers {sorted(record.layer_bytes)} in shard {record.shard}"
        )
    return array_specs(
        segments=len(record.stored),
        tokens=record.stored_tokens,
        examples=len(record.row_ids),
        row_id_bytes=sum(len(row_id.encode()) for row_id in record.row_ids),
        text_bytes=record.text_bytes,
        state_bytes=record.layer_bytes,
        hidden_size=manifest.hidden_size,
        codecs=manifest.codec_of,
    )


class StoredShard:
    """A published shard, open for reading segment by segment. Hidden states are never kept."""

    def __init__(self, root: Path, manifest: Manifest, record: ShardRecord, *, check: bool) -> None:
        """Find the arrays, and hold all that is said of them against the journal.

        Args:
            root: the cache's folder.
            manifest: the cache's manifest.
            record: what the journal knows of the shard.
            check: compare all bytes of its files with their checksums first; else their sizes only.

        Raises:
            DamagedCacheError: a file is missing, cut or changed, or its arrays are not the ones
                that the journal names.
        """
        self._starts = array("q", offsets_of(record.stored).tolist())
        for name, (size, checksum) in record.files.items():
            check_file(root, name, size, checksum if check else None)
        specs = record_specs(record, manifest)
        container = container_named(manifest.format)
        path = inside(root, shard_name(manifest, record.shard))
        self._rows: dict[str, _Rows] = {}
        if (
            unnamed := container.files(shard_name(manifest, record.shard), specs)
            - record.files.keys()
        ):
            raise DamagedCacheError(
                f"{root / min(unnamed)}: is not one of the files that the journal names for this"
                " shard"
            )
        for name, stored in container.locate(path, specs).items():
            if stored.spec != specs[name]:
                raise DamagedCacheError(
                    f"{path}: array {name!r} is {stored.spec}, the journal tells of {specs[name]}"
                )
            self._rows[name] = _Rows(stored)
        self._require_same_segments(path, record)
        self._layers = {
            layer: (
                packing_named(name).segments(
                    rows := self._rows[hidden_states_name(layer)],
                    rows.length,
                    record.stored.tolist(),
                    manifest.hidden_size,
                )
            )
            for layer, name in manifest.codec_of.items()
        }
        self._texts = array("q", self.array("text_offsets").tolist())
        self._held: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None

    def _require_same_segments(self, path: Path, record: ShardRecord) -> None:
        row_ids = [row_id.encode() for row_id in record.row_ids]
        same = (
            self.array("offsets").tolist() == self._starts.tolist()
            and self.array("prefixes").tolist() == record.prefixes.tolist()
            and self.array("numbers").tolist()
            == [*record.prefix_numbers.tolist(), *[NO_PREFIX] * len(row_ids)]
            and self.array("lengths").tolist() == record.lengths.tolist()
            and self.array("row_id_offsets").tolist() == offsets_of(map(len, row_ids)).tolist()
            and self.array("row_id_bytes").tobytes() == b"".join(row_ids)
            and _may_be_offsets(self.array("text_offsets"), record.text_bytes)
        )
        if not same:
            raise DamagedCacheError(f"{path}: its examples are not the ones that the journal names")

    @property
    def names(self) -> list[str]:
        """Names of its arrays."""
        return list(self._rows)

    @property
    def packed(self) -> dict[str, Segments]:
        """The segments of each layer's packed states, by the array's name."""
        return {hidden_states_name(layer): segments for layer, segments in self._layers.items()}

    def array(self, name: str) -> npt.NDArray[Any]:
        """A whole array as it is stored.

        Raises:
            DamagedCacheError: the file has been cut or has gone since the shard was opened.
        """
        return self._rows[name].read_all()

    def packed_array(self, layer: int) -> npt.NDArray[Any]:
        """A layer's hidden states as they are stored.

        Raises:
            DamagedCacheError: they cannot be read.
        """
        return self.array(hidden_states_name(layer))

    @property
    def token_bytes(self) -> int:
        """What `load_tokens` would take."""
        return int(5 * self._starts[-1])

    @property
    def tokens_loaded(self) -> bool:
        """Whether token ids and loss masks are kept in memory."""
        return self._held is not None

    def load_tokens(self) -> int:
        """Keep token ids and loss masks in memory, which saves two reads an example; the bytes that
        they take."""
        self._held = self.array("input_ids"), self.array("loss_mask").view(np.bool_)
        return sum(values.nbytes for values in self._held)

    def tokens(self, segment: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """Token ids and loss mask `[T]` of a segment."""
        start, stop = self._starts[segment], self._starts[segment + 1]
        if self._held:
            return self._held[0][start:stop].copy(), self._held[1][start:stop].copy()
        return self._rows["input_ids"].read(start, stop), self._rows["loss_mask"].read(
            start, stop
        ).view(np.bool_)

    def text(self, position: int) -> str:
        """The text of the shard's example at a position.

        Raises:
            DamagedCacheError: it cannot be read.
        """
        try:
            return (
                self._rows["text_bytes"]
                .read(self._texts[position], self._texts[position + 1])
                .tobytes()
                .decode()
            )
        except UnicodeDecodeError as error:
            raise DamagedCacheError(f"the text is not UTF-8 ({error})") from error

    def coded(self, segment: int, layer: int) -> CodedStates:
        """A segment's coded hidden states.

        Raises:
            KeyError: no such layer.
            DamagedCacheError: they cannot be read.
        """
        return self._layers[layer].read(segment)

    def close(self) -> None:
        """Close its files, and let go of what was made of them; they are opened again when they are
        read again."""
        for rows in self._rows.values():
            rows.close()
        for segments in self._layers.values():
            segments.release()


def read_arrays(located: Mapping[str, StoredArray]) -> dict[str, npt.NDArray[Any]]:
    """Whole arrays, from where they lie.

    Raises:
        DamagedCacheError: a file ends before its array does.
    """
    return {name: _Rows(stored).read_all() for name, stored in located.items()}


def _may_be_offsets(offsets: npt.NDArray[np.int64], size: int) -> bool:
    return bool(offsets[0] == 0 and offsets[-1] == size and (np.diff(offsets) >= 0).all())


class _Rows:
    """Reads rows of an array by their place in its file.

    A read asks the kernel for exactly those bytes: where they are gone it says so, while a memory
    map would end the process. Offsets are given with each read, so threads and forked processes may
    share the open file."""

    __slots__ = ("_dtype", "_file", "_offset", "_open", "_row_bytes", "_row_shape", "length")

    def __init__(self, stored: StoredArray) -> None:
        self._file, self._offset, self._dtype = stored.file, stored.offset, stored.spec.dtype
        self.length, *rest = stored.spec.shape
        self._row_shape = tuple(rest)
        self._row_bytes = math.prod(rest) * self._dtype.itemsize
        self._open: _OpenFile | None = None

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        values = np.empty((stop - start, *self._row_shape), self._dtype)
        if not values.size:  # an array of nothing may have no file
            return values
        offset = self._offset + start * self._row_bytes
        try:
            opened = (
                self._open
            )  # held here while it is read from: another thread may let go of it in the meantime
            if opened is None:
                opened = self._open = _OpenFile(self._file)
            done = os.preadv(opened.descriptor, [values.data], offset)
            if done != values.nbytes:
                self._read_on(opened, values.reshape(-1).view(np.uint8), offset, done)
        except OSError as error:
            raise DamagedCacheError(f"{self._file}: cannot be read ({error.strerror})") from error
        return values

    def read_all(self) -> npt.NDArray[Any]:
        size = self._file.stat().st_size if self._file.is_file() else 0
        if size < self._offset + self.length * self._row_bytes:  # asked before room is made for it
            raise DamagedCacheError(f"{self._file}: is shorter than its array")
        values = self.read(0, self.length)
        self.close()
        return values

    def _read_on(
        self, opened: _OpenFile, bytes_wanted: npt.NDArray[Any], offset: int, done: int
    ) -> None:
        """The kernel may give less than was asked for, such as 2 GiB at a time: go on until all is
        there."""
        while done < len(bytes_wanted):
            read = os.preadv(opened.descriptor, [bytes_wanted[done:].data], offset + done)
            if not read:
                raise DamagedCacheError(f"{self._file}: has been cut since it was opened")
            done += read

    def close(self) -> None:
        self._open = None


class _OpenFile:
    """A file that is closed when nobody holds it any longer."""

    __slots__ = ("descriptor",)

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
