"""The contract of a cache, for every container."""

from __future__ import annotations

import tempfile
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import Example, open_cache
from cache.containers import CONTAINER_NAMES
from tests.cache.examples import make_cache, make_examples, same_example

RAGGED = st.lists(st.lists(st.integers(1, 700), min_size=1, max_size=6), min_size=1, max_size=4)


def shards_of(lengths: list[list[int]], seed: int = 0) -> list[list[Example]]:
    examples = iter(make_examples([length for shard in lengths for length in shard], seed=seed))
    return [[next(examples) for _ in shard] for shard in lengths]


@pytest.mark.parametrize("container", CONTAINER_NAMES)
@settings(max_examples=15, deadline=None)
@given(lengths=RAGGED, seed=st.integers(0, 9))
def test_written_examples_are_read_back(
    container: str, lengths: list[list[int]], seed: int
) -> None:
    shards = shards_of(lengths, seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        open_cache(make_cache(Path(folder) / "c", shards, container)) as store,
    ):
        written = [example for shard in shards for example in shard]
        assert len(store) == len(written)
        assert all(
            same_example(read, example) for read, example in zip(store, written, strict=True)
        )
        assert store.row_ids == [example.row_id for example in written]
        assert store.lengths.tolist() == [len(example) for example in written]


@settings(max_examples=8, deadline=None)
@given(lengths=RAGGED)
def test_zarr_and_hdf5_have_identical_examples(lengths: list[list[int]]) -> None:
    shards = shards_of(lengths)
    with tempfile.TemporaryDirectory() as folder:
        stores = [
            open_cache(make_cache(Path(folder) / name, shards, name)) for name in CONTAINER_NAMES
        ]
        assert all(same_example(left, right) for left, right in zip(*stores, strict=True))
        assert stores[0].content_digest == stores[1].content_digest


@pytest.mark.parametrize("container", CONTAINER_NAMES)
def test_examples_have_the_documented_types(container: str, tmp_path: Path) -> None:
    store = open_cache(make_cache(tmp_path / "c", shards_of([[5, 3], [4]]), container))
    example = store[1]
    assert isinstance(example.row_id, str)
    assert example.input_ids.dtype == np.int32
    assert example.input_ids.shape == (3,)
    assert example.loss_mask.dtype == np.bool_
    assert list(example.hidden_states) == [-1, 0]
    assert example.hidden_states[-1].dtype == ml_dtypes.bfloat16
    assert example.hidden_states[-1].shape == (3, 8)


@pytest.mark.parametrize("container", CONTAINER_NAMES)
def test_a_cache_is_a_sequence(container: str, tmp_path: Path) -> None:
    store = open_cache(make_cache(tmp_path / "c", shards_of([[5, 3], [4]]), container))
    assert same_example(store[-1], store[2])
    assert [example.row_id for example in store[1:]] == store.row_ids[1:]
    with pytest.raises(IndexError):
        store[3]


@pytest.mark.parametrize("container", CONTAINER_NAMES)
def test_only_the_requested_layers_are_read(container: str, tmp_path: Path) -> None:
    store = open_cache(make_cache(tmp_path / "c", shards_of([[5]]), container))
    assert list(store.example(0, [0]).hidden_states) == [0]
    assert store.example(0, []).hidden_states == {}


def test_zarr_python_opens_a_shard_with_its_description(tmp_path: Path) -> None:
    root = make_cache(tmp_path / "c", [make_examples([5, 3])], "zarr")
    group = zarr.open_group(root / "shards" / "000000.zarr", mode="r")
    states = group["hidden_states/-1"]
    assert isinstance(states, zarr.Array)
    assert states.shape == (8, 8)
    assert "bfloat16" in str(states.attrs["stored_as"])
    assert (
        open_cache(root)[0].hidden_states[-1].view(np.uint16).tolist()
        == np.asarray(states[:5]).tolist()
    )


def test_h5py_opens_a_shard_with_its_description(tmp_path: Path) -> None:
    root = make_cache(tmp_path / "c", [make_examples([5, 3])], "hdf5")
    with h5py.File(root / "shards" / "000000.h5") as file:
        assert file["hidden_states/-1"].shape == (8, 8)
        assert "bfloat16" in file["hidden_states/-1"].attrs["stored_as"]
        assert file["offsets"][:].tolist() == [0, 5, 8]
