"""Repair without the teacher, and replacement of single shards and attachments."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import CacheError, files, open_cache, write_cache
from cache.containers import CONTAINER_NAMES
from cache.errors import OtherContentError
from cache.upkeep.repair import repair_cache
from cache.upkeep.verify import verify_cache
from tests.cache.examples import (
    make_attachments,
    make_cache,
    make_content,
    make_examples,
    make_manifest,
    make_shards,
    same_example,
)
from tests.cache.faults import files_of, flip_byte, remove, shard_paths

SHARDS = make_shards([[5, 3], [4, 90, 2], [7, 1]])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: make_cache(tmp_path_factory.mktemp(name) / "c", SHARDS, name)
        for name in CONTAINER_NAMES
    }


def repair(root: Path) -> list[int]:
    """Repair from the original examples, in place of the teacher; return the replaced shards."""
    with repair_cache(root) as repairer:
        if repairer.damaged_attachments:
            repairer.replace_attachments(make_attachments(root))
        for shard in repairer.shards:
            assert (
                repairer.replace(shard, make_content(SHARDS[shard]), non_finite={}, provenance={})
                is not False
            )
        return repairer.shards


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(CONTAINER_NAMES), seed=st.integers(0, 1 << 30), faults=st.integers(1, 4)
)
def test_any_damage_is_repaired_to_the_original(
    name: str,
    seed: int,
    faults: int,
    whole: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    rng = random.Random(seed)
    root = shutil.copytree(whole[name], tmp_path_factory.mktemp("broken") / "c")
    manifest_lost = False
    for _ in range(faults):
        kinds = files_of(root)
        kind = rng.choice(sorted(kinds))
        if kind in ("manifest", "journal") and manifest_lost:
            continue  # one of the two copies of the manifest is needed
        manifest_lost |= kind in ("manifest", "journal")
        victim = rng.choice(kinds[kind])
        if rng.random() < 0.3 and kind == "values":
            remove(victim)
        else:
            flip_byte(victim, rng)
    repair(root)
    assert verify_cache(root).whole
    store, original = open_cache(root), open_cache(whole[name])
    assert store.content_digest == original.content_digest
    assert store.manifest == original.manifest
    assert all(same_example(*pair) for pair in zip(store, original, strict=True))


@pytest.mark.parametrize("container", CONTAINER_NAMES)
@pytest.mark.parametrize("name", ["manifest.json", "journal.jsonl"])
def test_manifest_and_journal_are_restored_without_the_teacher(
    name: str, container: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    root = shutil.copytree(whole[container], tmp_path / "c")
    intact = (root / name).read_bytes()
    (root / name).unlink()
    assert repair(root) == []  # journal lines are restored from the shards
    assert (root / name).read_bytes() == intact


def test_lines_are_restored_only_from_intact_shards_in_their_place(
    whole: dict[str, Path], tmp_path: Path
) -> None:
    root = shutil.copytree(whole["hdf5"], tmp_path / "c")
    (root / "journal.jsonl").unlink()
    content = bytearray(shard_paths(root)[0].read_bytes())
    states = SHARDS[0][1].hidden_states[-1].tobytes()
    content[bytes(content).index(states)] ^= 1
    shard_paths(root)[0].write_bytes(content)
    shutil.copy(shard_paths(root)[2], shard_paths(root)[1])
    with repair_cache(root) as repairer:
        assert (repairer.restored, repairer.shards) == ([2], [0, 1])
        assert (
            repairer.replace(0, make_content(SHARDS[0]), non_finite={}, provenance={}) is None
        )  # nothing to compare with
        repairer.replace(1, make_content(SHARDS[1]), non_finite={}, provenance={})
        repairer.require_consistent()
    assert open_cache(root).content_digest == open_cache(whole["hdf5"]).content_digest


def test_left_out_examples_are_restored_from_the_shard(tmp_path: Path) -> None:
    root = tmp_path / "c"
    left_out = make_examples([8], seed=9)
    manifest = make_manifest([SHARDS[0], [*SHARDS[1], *left_out]])
    with write_cache(root, manifest, make_attachments(root)) as writer:
        writer.publish(0, make_content(SHARDS[0]))
        writer.publish(1, make_content(SHARDS[1]), non_finite={left_out[0].row_id: 8})
    (root / "journal.jsonl").unlink()
    with repair_cache(root) as repairer:
        assert repairer.restored == [0, 1]
    assert verify_cache(root).whole
    assert open_cache(root).records[1].non_finite == {left_out[0].row_id: 8}


def test_a_contradictory_journal_is_not_repaired(tmp_path: Path) -> None:
    root = make_cache(tmp_path / "c", [SHARDS[0], SHARDS[0]])
    with (
        repair_cache(root) as repairer,
        pytest.raises(CacheError, match="row ids occur twice; this cannot be repaired"),
    ):
        repairer.require_consistent()


def test_a_shard_with_other_content_is_refused_unless_allowed(
    whole: dict[str, Path], tmp_path: Path
) -> None:
    root = shutil.copytree(whole["hdf5"], tmp_path / "c")
    remove(shard_paths(root)[1])
    before = open_cache(root).content_digest
    others = make_shards([[5, 3], [4, 90, 2]], layers=(-1, 0))[1]
    others[0].hidden_states[-1][0, 0] += 1
    with repair_cache(root) as repairer:
        with pytest.raises(OtherContentError, match="shard 1"):
            repairer.replace(1, make_content(others), non_finite={}, provenance={})
        assert not verify_cache(root).whole
        assert not repairer.replace(
            1, make_content(others), non_finite={}, provenance={}, other_content=True
        )
    assert verify_cache(root).whole
    assert open_cache(root).content_digest != before


def test_other_attachments_are_refused(whole: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(whole["hdf5"], tmp_path / "c")
    (root / "attachments" / "note.txt").unlink()
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "note.txt").write_text("other")
    (root / "attachments" / "added.jinja").write_text("not attached")
    with repair_cache(root) as repairer:
        with pytest.raises(CacheError, match=r"note\.txt: cannot be reproduced byte for byte"):
            repairer.replace_attachments(tmp_path / "others")
        assert (root / "attachments" / "added.jinja").exists()  # nothing was changed
        repairer.replace_attachments(make_attachments(root))
    assert [path.name for path in (root / "attachments").iterdir()] == ["note.txt"]
    assert verify_cache(root).whole


LINKS = [
    "manifest.json.partial",
    "journal.jsonl.partial",
    ".lock",
    "shards",
    "shards/000001.h5",
    "shards/partial-000001.h5",
]


@pytest.mark.parametrize("name", LINKS)
def test_repair_never_writes_through_a_link(
    name: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    root = shutil.copytree(whole["hdf5"], tmp_path / "c")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("do not lose me")
    before = sorted(outside.rglob("*"))
    for broken in ("manifest.json", "shards/000001.h5"):
        flip_byte(root / broken, random.Random(0))
    if (root / name).exists():
        remove(root / name)
    (root / name).symlink_to(outside if name == "shards" else outside / "precious")
    with contextlib.suppress(CacheError, OSError):
        repair(root)
    assert sorted(outside.rglob("*")) == before
    assert (outside / "precious").read_text() == "do not lose me"


def test_an_unreadable_file_counts_as_damage(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading fails as on a bad sector."""
    root = shutil.copytree(whole["hdf5"], tmp_path / "c")
    plain = files.checksum_of

    def checksum_of(path: Path) -> str:
        if path.name == "000001.h5":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return plain(path)

    with monkeypatch.context() as patch:
        patch.setattr(files, "checksum_of", checksum_of)
        (damage,) = verify_cache(root).damage
        assert (damage.what, damage.shard) == ("cannot be read (Input/output error)", 1)
        with pytest.raises(CacheError, match=r"shard 1, example 2 .*cannot be read"):
            list(open_cache(root))
    remove(shard_paths(root)[1])
    assert repair(root) == [1]


def test_a_repair_excludes_other_writers(whole: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(whole["hdf5"], tmp_path / "c")
    with (
        repair_cache(root),
        pytest.raises(CacheError, match="another process is writing"),
        repair_cache(root),
    ):
        pass


def test_a_missing_cache_is_refused_and_not_created(tmp_path: Path) -> None:
    for name in ("none", "empty"):
        if name == "empty":
            (tmp_path / name).mkdir()
        with pytest.raises(CacheError), repair_cache(tmp_path / name):
            pass
    assert not (tmp_path / "none").exists()
