"""Mending what can be mended without the teacher, and replacing shards one by one."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import CacheError, open_cache
from cache.errors import OtherContentError
from cache.formats import FORMAT_NAMES
from cache.mend import mend_cache
from cache.verify import verify_cache
from tests.cache.examples import make_attachments, make_cache, make_shards, same_example
from tests.cache.faults import files_of, flip_byte, remove, shard_paths

SHARDS = make_shards([[5, 3], [4, 90, 2], [7, 1]])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make_cache(tmp_path_factory.mktemp(name) / "c", SHARDS, name) for name in FORMAT_NAMES}


def mend(root: Path) -> list[int]:
    """With the examples that were written standing in for the teacher."""
    with mend_cache(root) as mender:
        if mender.attachments_damaged:
            mender.put_back_attachments(make_attachments(root))
        for shard in mender.shards:
            assert mender.replace(shard, SHARDS[shard], non_finite={}, provenance={})
        return mender.shards


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(FORMAT_NAMES), seed=st.integers(0, 1 << 30), faults=st.integers(1, 4))
def test_whatever_is_broken_is_mended_to_what_it_was(
    name: str, seed: int, faults: int, whole: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = random.Random(seed)
    root = shutil.copytree(whole[name], tmp_path_factory.mktemp("broken") / "c")
    manifest_lost = False
    for _ in range(faults):
        kinds = files_of(root)
        kind = rng.choice(sorted(kinds))
        if kind in ("manifest", "journal") and manifest_lost:
            continue  # two copies of the manifest; not both
        manifest_lost |= kind in ("manifest", "journal")
        victim = rng.choice(kinds[kind])
        if rng.random() < 0.3 and kind == "values":
            remove(victim)
        else:
            flip_byte(victim, rng)
    mend(root)
    assert verify_cache(root).whole
    store, original = open_cache(root), open_cache(whole[name])
    assert store.content_digest == original.content_digest
    assert store.manifest == original.manifest
    assert all(same_example(*pair) for pair in zip(store, original, strict=True))


@pytest.mark.parametrize("name", ["manifest.json", "journal.jsonl"])
def test_manifest_and_journal_are_put_back(name: str, whole: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(whole["zarr"], tmp_path / "c")
    intact = (root / name).read_bytes()
    (root / name).unlink()
    shards = mend(root)
    assert shards == ([] if name == "manifest.json" else [0, 1, 2])  # without its journal every shard is to be made again
    assert (root / name).read_bytes() == intact


def test_a_shard_of_other_numbers_is_refused_unless_allowed(whole: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(whole["hdf5"], tmp_path / "c")
    remove(shard_paths(root)[1])
    before = open_cache(root).content_digest
    others = make_shards([[5, 3], [4, 90, 2]], layers=(-1, 0))[1]
    others[0].hidden_states[-1][0, 0] += 1
    with mend_cache(root) as mender:
        with pytest.raises(OtherContentError, match="shard 1"):
            mender.replace(1, others, non_finite={}, provenance={})
        assert not verify_cache(root).whole
        assert not mender.replace(1, others, non_finite={}, provenance={}, other_content=True)
    assert verify_cache(root).whole
    assert open_cache(root).content_digest != before


def test_other_attachments_are_refused(whole: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(whole["hdf5"], tmp_path / "c")
    (root / "attachments" / "note.txt").unlink()
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "note.txt").write_text("other")
    with mend_cache(root) as mender, pytest.raises(CacheError, match=r"note\.txt"):
        mender.put_back_attachments(tmp_path / "others")


def test_one_mender_at_a_time_and_none_beside_a_writer(whole: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(whole["hdf5"], tmp_path / "c")
    with mend_cache(root), pytest.raises(CacheError, match="another process is writing"), mend_cache(root):
        pass


def test_where_nothing_is_there_nothing_is_made(tmp_path: Path) -> None:
    for name in ("none", "empty"):
        if name == "empty":
            (tmp_path / name).mkdir()
        with pytest.raises(CacheError), mend_cache(tmp_path / name):
            pass
    assert not (tmp_path / "none").exists()
