"""A shard as a Zarr v3 group: each array one file, cut into inner chunks by the sharding codec."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.buffer import Buffer
from zarr.codecs import BytesCodec, ShardingCodec
from zarr.storage import LocalStore, MemoryStore

from cache.array_spec import ArraySpec
from cache.codecs import packing_named
from cache.codecs.zarr_codec import CODECS, StatesCodec
from cache.containers.interface import Arrays, Attributes, Presented, StoredArray
from cache.errors import DamagedCacheError

CHUNK_ROWS = 256
"""Rows of an inner chunk of a two-dimensional array: the least that other tools read at a time."""
_CHUNK_ITEMS = 1 << 16
"""Items of an inner chunk of a one-dimensional array."""
_LARGEST_METADATA = 1 << 20
_INDEX_ENTRY, _INDEX_CHECKSUM = 16, 4


@dataclass(frozen=True)
class ZarrContainer:
    """Zarr v3 with the sharding codec, as zarr-python writes it; values are stored raw, or by this
    package's own codecs.

    All inner chunks are of one size and stand in their order, so a whole array is one run of bytes:
    it is read from there, without zarr-python's cost for each chunk. Packed states are the one
    chunk of an array of float32."""

    name: str = "zarr"
    suffix: str = ".zarr"

    def write(
        self, path: Path, arrays: Arrays, attributes: Attributes, presented: Mapping[str, Presented]
    ) -> None:
        """Write the arrays into a new group."""
        root = _new_group(LocalStore(path), attributes)
        for name, values in arrays.items():
            if name in presented:
                _new_presented(root, name, presented[name], attributes)
                if values.size:
                    file = path / name / _values_name(2)
                    file.parent.mkdir(parents=True)
                    file.write_bytes(np.ascontiguousarray(values).data)
            else:
                array = _new_array(root, name, ArraySpec(values.shape, values.dtype), attributes)
                if values.size:
                    array[...] = values

    def files(self, name: str, specs: Mapping[str, ArraySpec]) -> set[str]:
        """Of each array its metadata and its one file of values."""
        states = "hidden_states/"  # whatever their codec, two dimensions
        values = {
            f"{name}/{array}/{_values_name(2 if array.startswith(states) else len(spec.shape))}"
            for array, spec in specs.items()
            if math.prod(spec.shape)
        }
        return values | {f"{name}/{array}/zarr.json" for array in specs}

    def attributes(self, path: Path) -> dict[str, Any]:
        """The group's."""
        try:
            _require_small(path / "zarr.json")
            return dict(
                zarr.open_group(LocalStore(path, read_only=True), mode="r", zarr_format=3).attrs
            )
        except Exception as error:  # on bytes from anywhere, a library may stumble in any way
            raise DamagedCacheError(
                f"{path}: damaged, or not a Zarr group of this project ({error})"
            ) from error

    def locate(self, path: Path, names: Iterable[str]) -> dict[str, StoredArray]:
        """Find the arrays' files; those that are not raw and in one run are refused."""
        try:
            return {name: _located(path, name) for name in names}
        except Exception as error:  # on bytes from anywhere, a library may stumble in any way
            raise DamagedCacheError(
                f"{path}: damaged, or not a Zarr group of this project ({error})"
            ) from error

    def size(
        self,
        specs: Mapping[str, ArraySpec],
        attributes: Attributes,
        presented: Mapping[str, Presented],
    ) -> int:
        """Whole chunks, the index of each array's file, and the groups' and arrays' metadata."""
        total = _group_metadata_size(json.dumps(attributes.get("", {})))
        total += sum(
            _group_metadata_size("{}")
            for parent in {name.rpartition("/")[0] for name in specs}
            if parent
        )
        for name, spec in specs.items():
            told = json.dumps(attributes.get(name, {}))
            if name in presented:
                total += math.prod(spec.shape) * spec.dtype.itemsize + _presented_metadata_size(
                    presented[name], told
                )
                continue
            rows, stored_rows = _chunking(spec)
            if not spec.shape[0]:
                stored_rows = 0
            values = stored_rows * math.prod(spec.shape[1:]) * spec.dtype.itemsize
            total += (
                values + stored_rows // rows * _INDEX_ENTRY + (_INDEX_CHECKSUM if values else 0)
            )
            one = _array_metadata_size(spec.shape[1:], spec.dtype.str, told)
            total += one + sum(
                len(str(number)) - 1 for number in (spec.shape[0], rows, max(stored_rows, 1))
            )
        return total


def _chunking(spec: ArraySpec) -> tuple[int, int]:
    """Rows of an inner chunk, and rows of all inner chunks together."""
    length = max(spec.shape[0], 1)
    rows = min(length, CHUNK_ROWS if len(spec.shape) == 2 else _CHUNK_ITEMS)
    return rows, -(-length // rows) * rows


def _new_group(store: LocalStore | MemoryStore, attributes: Attributes) -> zarr.Group:
    return zarr.open_group(store, mode="w", zarr_format=3, attributes=dict(attributes.get("", {})))


def _new_array(
    root: zarr.Group, name: str, spec: ArraySpec, attributes: Attributes
) -> zarr.Array[Any]:
    rows, stored_rows = _chunking(spec)
    return root.create_array(
        name,
        shape=spec.shape,
        dtype=spec.dtype,
        chunks=(rows, *spec.shape[1:]),
        shards=(stored_rows, *spec.shape[1:]),
        compressors=None,
        attributes=dict(attributes.get(name, {})),
        config={"write_empty_chunks": True},
    )


def _new_presented(root: zarr.Group, name: str, array: Presented, attributes: Attributes) -> None:
    codec = CODECS[array.codec](**array.configuration)
    rows, *rest = array.spec.shape
    root.create_array(
        name,
        shape=array.spec.shape,
        dtype=array.spec.dtype,
        chunks=(max(rows, 1), *rest),
        serializer=codec,
        filters=None,
        compressors=None,
        attributes=dict(attributes.get(name, {})),
    )


def _values_name(dimensions: int) -> str:
    return "/".join(["c", *("0" for _ in range(dimensions))])


def _require_small(metadata: Path) -> None:
    if metadata.stat().st_size > _LARGEST_METADATA:
        raise ValueError(f"{metadata} is far too large")


def _located(path: Path, name: str) -> StoredArray:
    folder = path / name
    _require_small(folder / "zarr.json")
    array = zarr.open_array(LocalStore(folder, read_only=True), mode="r", zarr_format=3)
    spec = ArraySpec(tuple(map(int, array.shape)), np.dtype(array.dtype))
    if isinstance(array.metadata.codecs[0], StatesCodec):  # type: ignore[union-attr]
        return _located_packed(folder, array, spec)
    rows, stored_rows = _chunking(spec)
    (codec,) = array.metadata.codecs  # type: ignore[union-attr]
    raw = isinstance(codec, ShardingCodec) and all(
        isinstance(inner, BytesCodec) for inner in codec.codecs
    )
    if (
        not raw
        or array.chunks != (rows, *spec.shape[1:])
        or array.shards != (stored_rows, *spec.shape[1:])
    ):
        raise ValueError(f"array {name!r} is not stored as raw chunks of {rows} rows in one file")
    file = folder / _values_name(len(spec.shape))
    if not math.prod(spec.shape):
        return StoredArray(file, 0, spec)
    chunks = stored_rows // rows
    chunk_bytes = rows * math.prod(spec.shape[1:]) * spec.dtype.itemsize
    whole = chunks * (chunk_bytes + _INDEX_ENTRY) + _INDEX_CHECKSUM
    if file.stat().st_size != whole:
        raise ValueError(f"the values of {name!r} take {file.stat().st_size} bytes, not {whole}")
    with file.open("rb") as stream:
        stream.seek(chunks * chunk_bytes)
        index = np.frombuffer(stream.read(chunks * _INDEX_ENTRY), "<u8").reshape(chunks, 2)
    if not (
        np.array_equal(index[:, 0], np.arange(chunks, dtype=np.uint64) * chunk_bytes)
        and (index[:, 1] == chunk_bytes).all()
    ):
        raise ValueError(f"the chunks of {name!r} do not stand one after the other")
    return StoredArray(file, 0, spec)


def _located_packed(folder: Path, array: zarr.Array[Any], spec: ArraySpec) -> StoredArray:
    (codec,) = array.metadata.codecs  # type: ignore[union-attr]
    assert isinstance(codec, StatesCodec)
    if len(spec.shape) != 2 or array.chunks != (max(spec.shape[0], 1), spec.shape[1]):
        raise ValueError(f"array {folder.name!r} is not stored as one chunk")
    file = folder / _values_name(2)
    size = file.stat().st_size if file.exists() else 0
    return StoredArray(
        file,
        0,
        packing_named(codec.codec_name).spec(*spec.shape) or ArraySpec((size,), np.dtype(np.uint8)),
    )


@functools.lru_cache
def _group_metadata_size(attributes: str) -> int:
    held: dict[str, Buffer] = {}
    _new_group(MemoryStore(held), {"": json.loads(attributes)})
    return sum(map(len, held.values()))


@functools.lru_cache
def _array_metadata_size(tail: tuple[int, ...], dtype: str, attributes: str) -> int:
    """Of an array of one row, which has one digit wherever the number of rows is named."""
    held: dict[str, Buffer] = {}
    root = _new_group(MemoryStore(held), {})
    before = sum(map(len, held.values()))
    _new_array(
        root, "array", ArraySpec((1, *tail), np.dtype(dtype)), {"array": json.loads(attributes)}
    )
    return sum(map(len, held.values())) - before


def _presented_metadata_size(array: Presented, attributes: str) -> int:
    held: dict[str, Buffer] = {}
    root = _new_group(MemoryStore(held), {})
    before = sum(map(len, held.values()))
    _new_presented(root, "array", array, {"array": json.loads(attributes)})
    return sum(map(len, held.values())) - before
