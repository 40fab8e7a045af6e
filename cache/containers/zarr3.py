"""A shard as a Zarr v3 group: one file per array, cut into inner chunks by the sharding codec."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from zarr.storage import LocalStore

from cache.array_spec import ArraySpec
from cache.containers.interface import Arrays, Attributes, DecodedArray, StoredArray
from cache.containers.zarr_chunks import (
    INDEX_CHECKSUM_BYTES,
    INDEX_ENTRY_BYTES,
    chunking,
    values_name,
)
from cache.containers.zarr_create import (
    array_metadata_size,
    decoded_metadata_size,
    group_metadata_size,
    new_array,
    new_decoded_array,
    new_group,
)
from cache.containers.zarr_locate import locate_array, read_metadata
from cache.errors import DamagedCacheError


@dataclass(frozen=True)
class ZarrContainer:
    """Zarr v3 with the sharding codec, written by zarr-python.

    Inner chunks are raw, of equal size and in order, so a whole array is one run of bytes, read
    without zarr-python's cost per chunk. Packed states are the only chunk of a float32 array, which
    a codec of this package decodes.
    """

    name: str = "zarr"
    suffix: str = ".zarr"

    def write(
        self,
        path: Path,
        arrays: Arrays,
        attributes: Attributes,
        decoded: Mapping[str, DecodedArray],
    ) -> None:
        """Write the arrays into a new group."""
        root = new_group(LocalStore(path), attributes)
        for name, values in arrays.items():
            if name in decoded:
                new_decoded_array(root, name, decoded[name], attributes)
                if values.size:
                    file = path / name / values_name(2)
                    file.parent.mkdir(parents=True)
                    file.write_bytes(np.ascontiguousarray(values).data)
            else:
                array = new_array(root, name, ArraySpec(values.shape, values.dtype), attributes)
                if values.size:
                    array[...] = values

    def files(self, name: str, specs: Mapping[str, ArraySpec]) -> set[str]:
        """Return the metadata file and the file of values of each array."""
        states = "hidden_states/"  # always two dimensions
        values = {
            f"{name}/{array}/{values_name(2 if array.startswith(states) else len(spec.shape))}"
            for array, spec in specs.items()
            if math.prod(spec.shape)
        }
        return values | {f"{name}/{array}/zarr.json" for array in specs}

    def attributes(self, path: Path) -> dict[str, Any]:
        """Return the attributes of the group."""
        with _reporting_damage(path):
            return dict(read_metadata(path, "group").get("attributes", {}))

    def locate(self, path: Path, names: Iterable[str]) -> dict[str, StoredArray]:
        """Return the arrays' locations; refuse values that are not raw and in one run."""
        with _reporting_damage(path):
            return {name: locate_array(path, name) for name in names}

    def size(
        self,
        specs: Mapping[str, ArraySpec],
        attributes: Attributes,
        decoded: Mapping[str, DecodedArray],
    ) -> int:
        """Return the bytes of whole chunks, the index of each file, and all metadata."""
        total = group_metadata_size(json.dumps(attributes.get("", {})))
        parents = {name.rpartition("/")[0] for name in specs} - {""}
        total += len(parents) * group_metadata_size("{}")
        for name, spec in specs.items():
            described = attributes.get(name, {})
            if name in decoded:
                total += math.prod(spec.shape) * spec.dtype.itemsize
                total += decoded_metadata_size(decoded[name], described)
            else:
                total += _raw_size(spec, described)
        return total


def _raw_size(spec: ArraySpec, attributes: Mapping[str, Any]) -> int:
    rows, stored_rows = chunking(spec)
    if not spec.shape[0]:
        stored_rows = 0
    values = stored_rows * math.prod(spec.shape[1:]) * spec.dtype.itemsize
    index = stored_rows // rows * INDEX_ENTRY_BYTES + (INDEX_CHECKSUM_BYTES if values else 0)
    metadata = array_metadata_size(spec.shape[1:], spec.dtype.str, json.dumps(attributes))
    numbers = (spec.shape[0], rows, max(stored_rows, 1))
    return values + index + metadata + sum(len(str(number)) - 1 for number in numbers)


@contextlib.contextmanager
def _reporting_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # arbitrary bytes fail in arbitrary ways
        raise DamagedCacheError(
            f"{path}: damaged, or not a Zarr group of this project ({error})"
        ) from error
