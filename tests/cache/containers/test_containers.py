"""Containers: other tools read them, values are located correctly, sizes are exact."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore

from cache import DamagedCacheError
from cache.array_spec import ArraySpec
from cache.containers import CONTAINER_NAMES, StoredArray, container_named

Arrays = dict[str, np.ndarray[Any, Any]]
ATTRIBUTES = {"": {"kind": "shard"}, "hidden_states/-1": {"codec": "bf16", "ünïcode": "é"}}


def arrays_of(tokens: int, width: int, examples: int, layers: int) -> Arrays:
    rng = np.random.default_rng(tokens)
    states = {
        f"hidden_states/{-layer}": rng.integers(0, 1 << 16, (tokens, width), np.uint16)
        for layer in range(1, layers + 1)
    }
    return {"offsets": np.arange(examples + 1), "input_ids": rng.integers(0, 9, tokens, np.int32),
            "loss_mask": rng.integers(0, 2, tokens, np.uint8), **states}  # fmt: skip


def read_plainly(path: Path, name: str) -> np.ndarray[Any, Any]:
    """Read an array with the container's own library."""
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return np.asarray(file[name][()])
    return np.asarray(zarr.open_group(LocalStore(path), mode="r")[name][...])


def read_bytes(stored: StoredArray) -> np.ndarray[Any, Any]:
    count = int(np.prod(stored.spec.shape))
    return np.fromfile(stored.file, stored.spec.dtype, count, offset=stored.offset).reshape(
        stored.spec.shape
    )


def size_on_disk(path: Path) -> int:
    return sum(
        file.stat().st_size
        for file in ([path] if path.is_file() else path.rglob("*"))
        if file.is_file()
    )


SHAPES = {
    "tokens": st.integers(1, 1100),
    "width": st.integers(1, 40),
    "examples": st.integers(1, 300),
    "layers": st.integers(1, 3),
}


@pytest.mark.parametrize("name", CONTAINER_NAMES)
@settings(max_examples=40, deadline=None)
@given(**SHAPES)
def test_values_are_where_located_and_sizes_as_predicted(name: str, **shape: int) -> None:
    container, arrays = container_named(name), arrays_of(**shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"shard{container.suffix}"
        container.write(path, arrays, ATTRIBUTES, {})
        located = container.locate(path, arrays)
        for array, values in arrays.items():
            assert np.array_equal(read_plainly(path, array), values)
            assert np.array_equal(read_bytes(located[array]), values)
        specs = {array: ArraySpec(values.shape, values.dtype) for array, values in arrays.items()}
        assert container.size(specs, ATTRIBUTES, {}) == size_on_disk(path)


def test_a_large_array_has_the_predicted_size(tmp_path: Path) -> None:
    for name in CONTAINER_NAMES:
        container, arrays = container_named(name), arrays_of(70_000, 64, 12_000, 1)
        path = tmp_path / f"shard{container.suffix}"
        container.write(path, arrays, ATTRIBUTES, {})
        specs = {array: ArraySpec(values.shape, values.dtype) for array, values in arrays.items()}
        assert container.size(specs, ATTRIBUTES, {}) == size_on_disk(path)


def hdf5_with(path: Path, write: Callable[[h5py.File], object]) -> None:
    with h5py.File(path, "w", libver="v110") as file:
        write(file)


FOREIGN_HDF5: dict[str, Callable[[h5py.File], object]] = {
    "external file": lambda file: file.create_dataset(
        "a", (8,), "u1", external=[("/etc/hostname", 0, 8)]
    ),
    "external link": lambda file: file.__setitem__("a", h5py.ExternalLink("other.h5", "/a")),
    "soft link": lambda file: file.__setitem__("a", h5py.SoftLink("/b")),
    "compressed": lambda file: file.create_dataset(
        "a", data=np.zeros(1 << 20, np.uint8), compression="gzip"
    ),
    "chunked": lambda file: file.create_dataset("a", data=np.zeros(8, np.uint8), chunks=(4,)),
    "virtual": lambda file: file.create_virtual_dataset("a", h5py.VirtualLayout((8,), "u1")),
    "a group": lambda file: file.create_group("a"),
    "nothing": lambda file: file.create_dataset("b", data=np.zeros(8, np.uint8)),
    "never written": lambda file: file.create_dataset("a", (1 << 50,), "u1"),
}


@pytest.mark.parametrize("kind", FOREIGN_HDF5)
def test_hdf5_arrays_outside_the_file_are_refused(kind: str, tmp_path: Path) -> None:
    hdf5_with(tmp_path / "x.h5", FOREIGN_HDF5[kind])
    with pytest.raises(DamagedCacheError, match=r"x\.h5"):
        container_named("hdf5").locate(tmp_path / "x.h5", ["a"])


def zarr_with(path: Path, **options: Any) -> None:
    root = zarr.open_group(LocalStore(path), mode="w", zarr_format=3)
    root.create_array("a", data=np.arange(600, dtype=np.uint16).reshape(300, 2), **options)


@pytest.mark.parametrize(
    "options",
    [{"chunks": (256, 2)}, {"chunks": (256, 2), "shards": (512, 2)},
     {"chunks": (256, 1), "shards": (512, 2), "compressors": None},
     {"chunks": (64, 2), "shards": (512, 2), "compressors": None},
     {"chunks": (256, 2), "shards": (256, 2), "compressors": None}],
    ids=["not sharded", "compressed", "cut across", "small chunks", "two files"],
)  # fmt: skip
def test_zarr_arrays_with_another_layout_are_refused(
    options: dict[str, Any], tmp_path: Path
) -> None:
    zarr_with(tmp_path / "x.zarr", **options)
    with pytest.raises(DamagedCacheError, match=r"x\.zarr"):
        container_named("zarr").locate(tmp_path / "x.zarr", ["a"])


@pytest.mark.parametrize(
    ("text", "replacement"),
    [("300", str(10**18)), ("300", "-300"), ('"uint16"', '"object"'),
     ("256", "0"), ('"regular"', '"__import__"'),
     ("{", "[" * 100_000), ("{", " " * (2 << 20))],
)  # fmt: skip
def test_hostile_zarr_metadata_is_refused(text: str, replacement: str, tmp_path: Path) -> None:
    zarr_with(tmp_path / "x.zarr", chunks=(256, 2), shards=(512, 2), compressors=None)
    assert container_named("zarr").locate(tmp_path / "x.zarr", ["a"])["a"].spec.shape == (300, 2)
    path = tmp_path / "x.zarr" / "a" / "zarr.json"
    assert text in path.read_text()
    path.write_text(path.read_text().replace(text, replacement, 1))
    with pytest.raises(DamagedCacheError, match=r"x\.zarr"):
        container_named("zarr").locate(tmp_path / "x.zarr", ["a"])
