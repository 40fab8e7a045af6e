"""Creating Zarr groups and arrays, and the size of their metadata."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import zarr
from zarr.abc.buffer import Buffer
from zarr.storage import LocalStore, MemoryStore

from cache.array_spec import ArraySpec
from cache.codecs.zarr_codec import CODECS
from cache.containers.interface import Attributes, DecodedArray
from cache.containers.zarr_chunks import chunking


def new_group(store: LocalStore | MemoryStore, attributes: Attributes) -> zarr.Group:
    """Create the group of a shard."""
    return zarr.open_group(store, mode="w", zarr_format=3, attributes=dict(attributes.get("", {})))


def new_array(
    root: zarr.Group, name: str, spec: ArraySpec, attributes: Attributes
) -> zarr.Array[Any]:
    """Create an array of raw chunks in one file."""
    rows, stored_rows = chunking(spec)
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


def new_decoded_array(
    root: zarr.Group, name: str, array: DecodedArray, attributes: Attributes
) -> None:
    """Create an array of one chunk that a codec of this package decodes; write no values."""
    rows, *rest = array.spec.shape
    root.create_array(
        name,
        shape=array.spec.shape,
        dtype=array.spec.dtype,
        chunks=(max(rows, 1), *rest),
        serializer=CODECS[array.codec](**array.configuration),
        filters=None,
        compressors=None,
        attributes=dict(attributes.get(name, {})),
    )


@functools.lru_cache
def group_metadata_size(attributes: str) -> int:
    """Return the bytes of a group's metadata, given its attributes as JSON."""
    files: dict[str, Buffer] = {}
    new_group(MemoryStore(files), {"": json.loads(attributes)})
    return _total(files)


@functools.lru_cache
def array_metadata_size(tail: tuple[int, ...], dtype: str, attributes: str) -> int:
    """Return the bytes of the metadata of an array of one row.

    Its numbers of rows have one digit each; the caller adds the digits of longer arrays.

    Args:
        tail: shape of a row.
        dtype: NumPy name of the type.
        attributes: as JSON.
    """
    spec = ArraySpec((1, *tail), np.dtype(dtype))
    return _added(lambda root: new_array(root, "array", spec, {"array": json.loads(attributes)}))


def decoded_metadata_size(array: DecodedArray, attributes: Mapping[str, Any]) -> int:
    """Return the bytes of the metadata of an array that a codec decodes."""
    return _added(lambda root: new_decoded_array(root, "array", array, {"array": attributes}))


def _added(create: Callable[[zarr.Group], object]) -> int:
    files: dict[str, Buffer] = {}
    root = new_group(MemoryStore(files), {})
    before = _total(files)
    create(root)
    return _total(files) - before


def _total(files: Mapping[str, Buffer]) -> int:
    return sum(map(len, files.values()))
