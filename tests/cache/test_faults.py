"""Damaged bytes: they are reported with the affected examples, and never returned as numbers."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cache import CacheError, open_cache
from cache.containers import CONTAINER_NAMES
from cache.upkeep.verify import verify_cache
from tests.cache.examples import make_cache, make_shards, same_example
from tests.cache.faults import files_of, flip_byte, remove, shard_paths, swap

SHARDS = make_shards([[5, 3], [4, 90, 2], [7, 1]])
WRITTEN = [example for shard in SHARDS for example in shard]
FLIPS = 240


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: make_cache(tmp_path_factory.mktemp(name) / "c", SHARDS, name)
        for name in CONTAINER_NAMES
    }


def read_all(root: Path) -> int:
    """Check that each example is the written one or an error; return the number of errors."""
    try:
        store = open_cache(root)
    except CacheError:
        return len(WRITTEN)
    errors = 0
    for index, example in enumerate(WRITTEN):
        try:
            read = store[index]
        except CacheError as error:
            assert f"example {index} (row {example.row_id})" in str(error)
            errors += 1
        else:
            assert same_example(read, example)
    return errors


@pytest.mark.parametrize("name", CONTAINER_NAMES)
@pytest.mark.parametrize("batch", range(8))
def test_every_flipped_byte_is_detected_and_never_read(
    name: str, batch: int, whole: dict[str, Path], tmp_path: Path
) -> None:
    """FLIPS flips in all, over files of every kind."""
    rng = random.Random(f"{name} {batch}")
    root = shutil.copytree(whole[name], tmp_path / "c")
    kinds = sorted(files_of(root))
    for number in range(FLIPS // 8 // len(CONTAINER_NAMES)):
        victim = rng.choice(files_of(root)[kinds[number % len(kinds)]])
        intact = victim.read_bytes()
        place = flip_byte(victim, rng)
        assert read_all(root) > 0, f"byte {place} of {victim} is read"
        result = verify_cache(root)  # one flip cannot damage both the manifest and its copy
        damaged = {damage.file for damage in result.damage}
        assert not result.whole
        assert victim.relative_to(root).as_posix() in damaged or (
            victim.name == "journal.jsonl" and result.missing_shards
        ), damaged
        victim.write_bytes(intact)
    assert verify_cache(root).whole
    assert read_all(root) == 0


def test_a_flip_in_the_states_names_exactly_its_example(
    whole: dict[str, Path], tmp_path: Path
) -> None:
    for name in CONTAINER_NAMES:
        root = shutil.copytree(whole[name], tmp_path / name)
        victim = shard_paths(root)[1]
        victim = victim / "hidden_states" / "-1" / "c" / "0" / "0" if victim.is_dir() else victim
        content = bytearray(victim.read_bytes())
        states = SHARDS[1][1].hidden_states[-1].tobytes()
        content[bytes(content).index(states) + 7] ^= 1
        victim.write_bytes(content)
        (damage,) = verify_cache(root).damage
        assert (damage.shard, damage.examples, damage.row_ids) == (1, [3], [SHARDS[1][1].row_id])


def cut(root: Path) -> None:
    shard = shard_paths(root)[1]
    path = max(path for path in [shard, *shard.rglob("*")] if path.is_file())
    os.truncate(path, path.stat().st_size - 1)


def exchange_arrays(root: Path) -> None:
    """Exchange two shards, whose files keep names and sizes."""
    swap(shard_paths(root)[0], shard_paths(root)[2])


def other_caches_shard(root: Path) -> None:
    others = make_shards([[5, 3], [4, 90, 2], [7, 1]], hidden_size=8)
    for shard in others:
        for example in shard:
            example.input_ids[:] = 1
    other = make_cache(
        root.parent / "other", others, "hdf5" if shard_paths(root)[0].is_file() else "zarr"
    )
    remove(shard_paths(root)[1])
    shutil.move(shard_paths(other)[1], shard_paths(root)[0].parent)


def link_instead(root: Path) -> None:
    target = shard_paths(root)[1].rename(root.parent / "moved")
    (root / "shards" / ("000001.h5" if target.is_file() else "000001.zarr")).symlink_to(target)


def empty_file(root: Path) -> None:
    shard = shard_paths(root)[2]
    os.truncate(shard if shard.is_file() else shard / "offsets/c/0", 0)


FAULTS: dict[str, tuple[Callable[[Path], object], set[int]]] = {
    "cut": (cut, {1}),
    "missing": (lambda root: remove(shard_paths(root)[1]), {1}),
    "all missing": (lambda root: shutil.rmtree(root / "shards"), {0, 1, 2}),
    "swapped": (exchange_arrays, {0, 2}),
    "another cache's": (other_caches_shard, {1}),
    "a link": (link_instead, {1}),
    "empty file": (empty_file, {2}),
}


@pytest.mark.parametrize("name", CONTAINER_NAMES)
@pytest.mark.parametrize("fault", FAULTS)
def test_cut_missing_and_swapped_shards_are_named(
    fault: str, name: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    root = shutil.copytree(whole[name], tmp_path / "c")
    break_it, shards = FAULTS[fault]
    break_it(root)
    result = verify_cache(root)
    assert set(result.damaged_shards()) == shards
    assert read_all(root) == sum(len(SHARDS[shard]) for shard in shards)
    row_ids = {row_id for damage in result.damage for row_id in damage.row_ids}
    assert row_ids == {example.row_id for shard in shards for example in SHARDS[shard]}


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_lost_journal_line_is_a_missing_shard(
    number: int, whole: dict[str, Path], tmp_path: Path
) -> None:
    root = shutil.copytree(whole["zarr"], tmp_path / "c")
    lines = (root / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (root / "journal.jsonl").write_bytes(b"".join(lines[:number] + lines[number + 1 :]))
    assert verify_cache(root).missing_shards == [number - 1]
    with pytest.raises(CacheError, match="not complete"):
        open_cache(root)


def test_a_journal_of_another_cache_is_refused(whole: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(whole["zarr"], tmp_path / "c")
    other = make_cache(tmp_path / "other", make_shards([[5, 3], [4, 90, 2], [7, 2]]))
    shutil.copy(other / "journal.jsonl", root / "journal.jsonl")
    with pytest.raises(CacheError, match="is not of the same cache"):
        open_cache(root)
    assert not verify_cache(root).whole


def test_leftovers_of_a_dead_writer_are_not_damage(whole: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(whole["hdf5"], tmp_path / "c")
    (root / "shards" / "partial-000002.h5").write_bytes(b"half")
    with (root / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"shard": 1, "digest": "ab')
    result = verify_cache(root)
    assert result.whole
    assert result.strays == ["shards/partial-000002.h5"]
