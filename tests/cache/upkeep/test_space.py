"""Disk space: the exact size of a cache is known before it is written."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import CacheError, open_cache
from cache.containers import CONTAINER_NAMES
from cache.storage import FolderLocation
from cache.upkeep.space import free_bytes, reclaimable_bytes, require_room, room_needed, shard_size
from tests.cache.examples import make_cache, make_manifest, make_shards


@pytest.mark.parametrize("name", CONTAINER_NAMES)
@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(1, 700), min_size=1, max_size=5), min_size=1, max_size=3),
    hidden_size=st.integers(1, 70),
    layers=st.sampled_from([(-1,), (0, -1), (5, 12, -1)]),
)
def test_predicted_shard_sizes_are_exact(
    name: str, lengths: list[list[int]], hidden_size: int, layers: tuple[int, ...]
) -> None:
    shards = make_shards(lengths, hidden_size=hidden_size, layers=layers)
    manifest = make_manifest(shards, name)
    with tempfile.TemporaryDirectory() as folder:
        store = open_cache(make_cache(Path(folder) / "c", shards, name))
        predicted = [
            shard_size(manifest, [len(e) for e in shard], [e.row_id for e in shard], 0)
            for shard in shards
        ]
        assert predicted == [record.bytes for record in store.records]
        rest = (
            sum(file.stat().st_size for file in Path(folder, "c").rglob("*") if file.is_file())
            - store.bytes
        )
        assert store.bytes + rest <= room_needed(predicted, len(store))


def test_files_of_a_dead_writer_are_reclaimable(tmp_path: Path) -> None:
    root = make_cache(tmp_path / "c", make_shards([[5, 3], [4]]), "hdf5")
    names = [name for record in open_cache(root).records for name in record.files]
    assert reclaimable_bytes(root, names) == 0
    (root / "shards" / "partial-000002.h5").write_bytes(bytes(1000))
    assert reclaimable_bytes(root, names) == 1000
    assert reclaimable_bytes(root, names[:1]) == 1000 + (root / names[1]).stat().st_size
    assert reclaimable_bytes(tmp_path / "none", []) == 0


def test_too_little_room_is_an_error_with_both_sizes(tmp_path: Path) -> None:
    require_room(FolderLocation(tmp_path / "not" / "there" / "yet"), room_needed([10**6], 10))
    require_room(FolderLocation(tmp_path), room_needed([], 0))
    with pytest.raises(
        CacheError, match=r"1,000,000\.00 TB more are needed, its disk has \d+\.\d\d GB free"
    ):
        require_room(FolderLocation(tmp_path), room_needed([10**18], 10))
    assert free_bytes(tmp_path / "not" / "there") > 0
