"""Local copies of remote shards: their limit, and processes that share them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cache import open_cache
from cache.storage.local_copies import LocalCopies, folder_name
from cache.storage.object_store import ObjectStoreLocation
from tests.cache.examples import same_example
from tests.cache.storage.copies import EXAMPLES, with_copies
from tests.conftest import ROOT

READER = """
import random, sys
from pathlib import Path
from cache import open_cache
from cache.storage.object_store import ObjectStoreLocation
from tests.cache.examples import same_example
from tests.cache.storage.copies import EXAMPLES
address, endpoint, copies, seed = sys.argv[1:]
with open_cache(ObjectStoreLocation(address, endpoint, Path(copies), 0)) as cache:
    rng = random.Random(seed)
    print("ready", flush=True)
    for _ in range(40):
        index = rng.randrange(len(EXAMPLES))
        assert same_example(cache[index], EXAMPLES[index])
"""


def test_a_process_that_dies_while_removing_a_copy_leaves_no_incomplete_one(
    cached: ObjectStoreLocation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = with_copies(cached, tmp_path, 10**9)
    with open_cache(location) as cache:
        assert same_example(cache[0], EXAMPLES[0])
        monkeypatch.setattr(
            "cache.storage.local_copies.remove",
            lambda path: path.exists() and (_ for _ in ()).throw(KeyboardInterrupt),
        )
        other = open_cache(with_copies(cached, tmp_path, 0))
        with pytest.raises(KeyboardInterrupt):
            other[len(EXAMPLES) - 1]  # needs the space of shard 0
        monkeypatch.undo()
        assert same_example(cache[0], EXAMPLES[0])


def test_processes_share_copies_and_a_dead_one_pins_none(
    cached: ObjectStoreLocation, tmp_path: Path
) -> None:
    def start(seed: int) -> subprocess.Popen[str]:
        arguments = [cached.address, str(cached.endpoint), str(tmp_path), str(seed)]
        return subprocess.Popen(
            [sys.executable, "-c", READER, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    readers = [start(seed) for seed in range(3)]
    assert readers[0].stdout is not None
    assert readers[0].stdout.readline() == "ready\n", readers[0].communicate()
    readers[0].kill()
    results = [reader.communicate(timeout=120)[1] for reader in readers]
    assert [reader.returncode for reader in readers] == [-9, 0, 0], results
    location = with_copies(cached, tmp_path, 0)
    # left by a process that died while downloading
    (location.folder / "shards" / "partial-000000.zarr").mkdir(parents=True)
    with open_cache(location) as cache:
        for index in (0, len(EXAMPLES) - 1):
            assert same_example(cache[index], EXAMPLES[index])
    assert len(list((location.folder / "shards").iterdir())) == 1


def test_a_failed_download_leaves_nothing_and_releases_its_lock(tmp_path: Path) -> None:
    copies = LocalCopies(tmp_path, "c", 100)

    def fail(staged: Path) -> None:
        staged.mkdir()
        raise OSError("unreachable")

    for _ in range(2):
        with pytest.raises(OSError, match="unreachable"):
            copies.pin("000000.zarr", fail)

    def download(staged: Path) -> None:
        staged.write_bytes(b"whole")

    for fetch in (download, fail):
        with copies.pin("000000.zarr", fetch):
            pass
    assert (copies.folder / "shards" / "000000.zarr").read_bytes() == b"whole"


def test_the_limit_counts_the_copies_of_all_caches(tmp_path: Path) -> None:
    def download_to(copies: LocalCopies) -> Callable[[Path], None]:
        return lambda staged: copies.make_room(40, lambda: staged.write_bytes(bytes(40)))

    caches = [LocalCopies(tmp_path, name, 100) for name in "abc"]
    for copies in caches:
        copies.pin("000000.h5", download_to(copies)).release()
    assert [path.parts[-4] for path in sorted(tmp_path.glob("*/cache/shards/*"))] == ["b", "c"]


def test_folder_names_are_readable_and_unique() -> None:
    names = {
        folder_name(address, endpoint)
        for address, endpoint in [
            ("s3://b/a", None),
            ("s3://b/a", "http://x"),
            ("s3://b-a/", None),
            ("s3://b/a/", None),
        ]
    }
    assert len(names) == 4
    assert all(name.startswith("b-a-") for name in names)
