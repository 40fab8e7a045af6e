"""Conversion: the same content in another container, despite interruptions."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import CacheError, DamagedCacheError, open_cache, write_cache
from cache.codecs.bf16 import Bf16
from cache.containers import CONTAINER_NAMES
from cache.upkeep.convert import convert_cache
from cache.upkeep.verify import verify_cache
from tests.cache.examples import (
    make_attachments,
    make_cache,
    make_content,
    make_manifest,
    make_shards,
    same_example,
)
from tests.cache.faults import shard_paths

LENGTHS = st.lists(st.lists(st.integers(1, 600), min_size=1, max_size=4), min_size=1, max_size=4)


@settings(max_examples=12, deadline=None)
@given(
    lengths=LENGTHS,
    container=st.sampled_from(CONTAINER_NAMES),
    other=st.sampled_from(CONTAINER_NAMES),
)
def test_converting_there_and_back_changes_nothing(
    lengths: list[list[int]], container: str, other: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = make_cache(Path(folder) / "source", make_shards(lengths), container)
        middle, target = Path(folder) / "middle", Path(folder) / "target"
        assert convert_cache(source, middle, container=other).same_content
        result = convert_cache(middle, target, container=container)
        before, after = open_cache(source), open_cache(target)
        assert (result.bytes, result.content_digest) == (before.bytes, before.content_digest)
        assert after.manifest == before.manifest
        assert all(same_example(*pair) for pair in zip(before, after, strict=True))
        if container == "zarr":  # HDF5 files contain the time
            files = [
                {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
                for root in (source, target)
            ]
            assert files[0] == files[1]


def test_an_empty_shard_stays_empty(tmp_path: Path) -> None:
    shards = make_shards([[4], [5]])
    with write_cache(
        tmp_path / "c", make_manifest(shards), make_attachments(tmp_path / "a")
    ) as writer:
        writer.publish(0, make_content(shards[0]))
        writer.publish(1, make_content([]), non_finite={shards[1][0].row_id: 5})
    result = convert_cache(tmp_path / "c", tmp_path / "d", container="hdf5")
    assert (result.same_content, result.examples, result.shards) == (True, 1, 2)


def test_an_interrupted_conversion_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_cache(tmp_path / "source", make_shards([[5, 3], [4], [7]]))

    def stop(done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_cache(source, tmp_path / "target", container="hdf5", progress=stop)
    result = convert_cache(source, tmp_path / "target", container="hdf5")
    assert (result.resumed_shards, result.shards, result.same_content) == (2, 3, True)
    assert convert_cache(source, tmp_path / "target", container="hdf5").resumed_shards == 3
    assert verify_cache(tmp_path / "target").whole


def test_a_damaged_source_is_refused(tmp_path: Path) -> None:
    source = make_cache(tmp_path / "source", make_shards([[5, 3], [4]]), "hdf5")
    content = bytearray(shard_paths(source)[1].read_bytes())
    content[-1] ^= 1
    shard_paths(source)[1].write_bytes(content)
    with pytest.raises(DamagedCacheError, match=r"shard 1: .*checksum differs"):
        convert_cache(source, tmp_path / "target", container="zarr")


def test_impossible_conversions_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_cache(tmp_path / "source", make_shards([[5, 3], [4]]))
    for target in (tmp_path / "x" / ".." / "source", source / "inside", tmp_path):
        with pytest.raises(CacheError, match="into its own folder"):
            convert_cache(source, target)
    with pytest.raises(CacheError, match="unknown cache format"):
        convert_cache(source, tmp_path / "target", container="csv")
    lossy = make_cache(tmp_path / "lossy", make_shards([[5, 3], [4]]), codec="int8")
    with pytest.raises(CacheError, match="layer -1 is stored as int8, which cannot be undone"):
        convert_cache(lossy, tmp_path / "target", codecs={-1: Bf16()})
    incomplete = make_cache(tmp_path / "incomplete", make_shards([[5, 3], [4]]), publish=[1])
    with pytest.raises(CacheError, match="not complete"):
        convert_cache(incomplete, tmp_path / "target")
    monkeypatch.setattr("cache.upkeep.space.free_bytes", lambda path: 1000)
    with pytest.raises(
        CacheError, match=r"16\.\d\d MB more are needed, its disk has 1,000 bytes free"
    ):
        convert_cache(source, tmp_path / "target")
    assert not (tmp_path / "target").exists()
    other = make_cache(tmp_path / "other", make_shards([[9]]))
    with pytest.raises(CacheError):
        convert_cache(source, other, container="hdf5")
    assert open_cache(other).lengths.tolist() == [9]
