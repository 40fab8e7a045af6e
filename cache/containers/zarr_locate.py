"""Locating an array's values in a Zarr group, from its Zarr v3 metadata.

Only the values of raw chunks that are in order in one file can be located; other metadata are
refused.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from cache.array_spec import ArraySpec
from cache.codecs import CODEC_NAMES, EXACT, packing_named
from cache.containers.interface import StoredArray
from cache.containers.zarr_chunks import (
    INDEX_CHECKSUM_BYTES,
    INDEX_ENTRY_BYTES,
    chunking,
    values_name,
)
from cache.names import zarr_codec_name

_LARGEST_METADATA = 1 << 20
_TYPES = {"uint8", "uint16", "int32", "int64", "float32"}
_PACKINGS = {zarr_codec_name(name): packing_named(name) for name in CODEC_NAMES if name != EXACT}


def read_metadata(folder: Path, kind: str) -> dict[str, Any]:
    """Return the metadata of a Zarr v3 group or array.

    Args:
        folder: of the group or array.
        kind: `group` or `array`.

    Raises:
        ValueError, OSError: they are missing, too large, or not of that kind.
    """
    file = folder / "zarr.json"
    if file.stat().st_size > _LARGEST_METADATA:
        raise ValueError(f"{file} is too large for Zarr metadata")
    metadata = json.loads(file.read_bytes())
    if type(metadata) is not dict or (metadata["zarr_format"], metadata["node_type"]) != (3, kind):
        raise ValueError(f"{file} does not describe a Zarr v3 {kind}")
    return metadata


def locate_array(group: Path, name: str) -> StoredArray:
    """Return the location of an array's values.

    Raises:
        Exception: any, if the metadata describe another layout.
    """
    metadata = read_metadata(group / name, "array")
    shape = tuple(metadata["shape"])
    if metadata["data_type"] not in _TYPES or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"array {name!r} has an unknown type or shape")
    spec = ArraySpec(shape, np.dtype(metadata["data_type"]))
    grid = metadata["chunk_grid"]
    if grid["name"] != "regular" or metadata["chunk_key_encoding"]["name"] != "default":
        raise ValueError(f"array {name!r} is not cut into regular chunks")
    whole_chunk = tuple(grid["configuration"]["chunk_shape"])
    (codec,) = metadata["codecs"]
    if codec["name"] in _PACKINGS:
        return _packed(group / name, spec, whole_chunk, codec["name"])
    return _raw(group / name, spec, whole_chunk, codec)


def _raw(
    folder: Path, spec: ArraySpec, whole_chunk: tuple[int, ...], codec: dict[str, Any]
) -> StoredArray:
    rows, stored_rows = chunking(spec)
    sharding = codec["configuration"]
    (serializer,) = sharding["codecs"]
    if (
        (codec["name"], serializer["name"]) != ("sharding_indexed", "bytes")
        or serializer.get("configuration", {}).get("endian", "little") != "little"
        or tuple(sharding["chunk_shape"]) != (rows, *spec.shape[1:])
        or whole_chunk != (stored_rows, *spec.shape[1:])
    ):
        raise ValueError(f"{folder.name!r} is not stored as raw chunks of {rows} rows in one file")
    file = folder / values_name(len(spec.shape))
    if math.prod(spec.shape):
        _require_chunks_in_order(file, spec)
    return StoredArray(file, 0, spec)


def _require_chunks_in_order(file: Path, spec: ArraySpec) -> None:
    rows, stored_rows = chunking(spec)
    chunks = stored_rows // rows
    chunk_bytes = rows * math.prod(spec.shape[1:]) * spec.dtype.itemsize
    size = chunks * (chunk_bytes + INDEX_ENTRY_BYTES) + INDEX_CHECKSUM_BYTES
    if file.stat().st_size != size:
        raise ValueError(f"{file} has {file.stat().st_size} bytes, not {size}")
    with file.open("rb") as stream:
        stream.seek(chunks * chunk_bytes)
        index = np.frombuffer(stream.read(chunks * INDEX_ENTRY_BYTES), "<u8").reshape(chunks, 2)
    starts = np.arange(chunks, dtype=np.uint64) * chunk_bytes
    if not (np.array_equal(index[:, 0], starts) and (index[:, 1] == chunk_bytes).all()):
        raise ValueError(f"the chunks of {file} are not in order")


def _packed(folder: Path, spec: ArraySpec, whole_chunk: tuple[int, ...], codec: str) -> StoredArray:
    if len(spec.shape) != 2 or whole_chunk != (max(spec.shape[0], 1), spec.shape[1]):
        raise ValueError(f"array {folder.name!r} is not stored as one chunk")
    file = folder / values_name(2)
    size = file.stat().st_size if file.exists() else 0
    stored = _PACKINGS[codec].spec(*spec.shape) or ArraySpec((size,), np.dtype(np.uint8))
    return StoredArray(file, 0, stored)
