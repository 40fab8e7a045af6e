"""Local copies of remote shards: their content, their limit, and processes that share them."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache import Cache, CacheError, DamagedCacheError, open_cache
from cache.files import bytes_below
from cache.storage.bucket import Bucket
from cache.storage.local_copies import LocalCopies, folder_name
from cache.storage.object_store import ObjectStoreLocation
from tests.cache.examples import make_cache, make_shards, same_example
from tests.cache.storage.server import new_address
from tests.conftest import ROOT

SHARDS = make_shards([[40, 3], [25, 9], [30], [18, 18], [44], [9, 9, 9]])
EXAMPLES = [example for shard in SHARDS for example in shard]
READS = st.lists(st.integers(0, len(EXAMPLES) - 1), max_size=25)
Store = Callable[[], ObjectStoreLocation]


@pytest.fixture(scope="module", params=["zarr", "hdf5"])
def cached(
    request: pytest.FixtureRequest, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> ObjectStoreLocation:
    return make_cache(
        ObjectStoreLocation(new_address(), s3_endpoint, tmp_path_factory.mktemp("made")),
        SHARDS,
        request.param,
    )


def with_copies(location: ObjectStoreLocation, folder: Path, limit: int) -> ObjectStoreLocation:
    return ObjectStoreLocation(location.address, location.endpoint, folder, limit)


def held_by(location: ObjectStoreLocation) -> int:
    return bytes_below(location.folder / "shards")


@pytest.mark.parametrize("ahead", [False, True])
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(reads=READS, share=st.sampled_from([0.0, 0.3, 0.6, 1.0]))
def test_whatever_is_read_is_right_and_the_copies_stay_within_the_limit(
    ahead: bool, cached: ObjectStoreLocation, reads: list[int], share: float, tmp_path: Path
) -> None:
    sizes = [record.bytes for record in open_cache(cached).records]
    limit = int(sum(sizes) * share)
    brought = 3 if ahead else 1  # by two threads, and by the reader
    location = with_copies(cached, tmp_path / f"{limit}-{random.random()}", limit)
    with open_cache(location) as cache:
        for index in reads:
            assert same_example(cache[index], EXAMPLES[index])
            assert held_by(location) <= (
                limit + brought * max(sizes) if ahead else max(limit, max(sizes))
            )
            if ahead:
                cache.prefetch([shard for shard in range(len(sizes)) if (shard + index) % 2])


def test_a_shard_that_is_held_is_not_removed(cached: ObjectStoreLocation, tmp_path: Path) -> None:
    location = with_copies(cached, tmp_path, 0)
    with open_cache(location) as cache:
        held = location.read().pin(cache.records[0])
        for index in range(2, len(EXAMPLES)):
            assert same_example(cache[index], EXAMPLES[index])
        assert len(list((location.folder / "shards").iterdir())) == 2
        held.release()
        assert same_example(cache[3], EXAMPLES[3])
        assert same_example(cache[len(EXAMPLES) - 1], EXAMPLES[-1])
        assert len(list((location.folder / "shards").iterdir())) == 1


def test_a_copy_that_is_damaged_here_is_brought_again(
    cached: ObjectStoreLocation, tmp_path: Path
) -> None:
    location = with_copies(cached, tmp_path, 10**9)
    with open_cache(location) as cache:
        assert same_example(cache[0], EXAMPLES[0])
    values = max(
        (p for p in location.folder.joinpath("shards").rglob("*") if p.is_file()),
        key=lambda p: p.stat().st_size,
    )
    content = bytearray(values.read_bytes())
    content[len(content) // 2] ^= 1
    values.write_bytes(content)
    with open_cache(location) as cache:
        assert same_example(cache[0], EXAMPLES[0])


def test_damage_in_the_store_is_never_returned_as_numbers(store: Store) -> None:
    location = store()
    make_cache(location, SHARDS)
    bucket = Bucket(location.address, location.endpoint)
    name = "shards/000001.zarr/hidden_states/-1/c/0/0"
    content = bytearray(bucket.get(name) or b"")
    content[7] ^= 1
    bucket.put(name, bytes(content))
    elsewhere = with_copies(location, location.folder.parents[2] / "elsewhere", 10**9)
    with open_cache(elsewhere) as cache:
        assert same_example(cache[0], EXAMPLES[0])
        for _ in range(2):
            with pytest.raises(
                DamagedCacheError,
                match=rf"^shard 1, example 2 \(row \S+\): {location.address}/{name}: its bytes",
            ):
                cache[2]
        assert same_example(cache[4], EXAMPLES[4])
        bucket.delete([name])
        with pytest.raises(DamagedCacheError, match=f"{name}: missing"):
            cache[2]


def test_a_copy_that_another_has_replaced_is_looked_at_again(store: Store) -> None:
    location = store()
    make_cache(location, SHARDS)
    bucket = Bucket(location.address, location.endpoint)
    name = "shards/000000.zarr/hidden_states/-1/c/0/0"
    with open_cache(location) as cache:
        assert same_example(cache[0], EXAMPLES[0])
        content = bytearray(bucket.get(name) or b"")
        content[3] ^= 1
        bucket.put(name, bytes(content))
        location.read().pin(
            cache.records[0], refetch=True
        ).release()  # as a prefetching thread, or another process, would
        with pytest.raises(DamagedCacheError, match=f"{name}: its bytes"):
            cache[0]


def test_a_process_that_dies_while_it_removes_a_copy_leaves_no_half_of_it(
    cached: ObjectStoreLocation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = with_copies(cached, tmp_path, 10**9)
    with open_cache(location) as cache:
        assert same_example(cache[0], EXAMPLES[0])
        monkeypatch.setattr(
            "cache.storage.local_copies.remove",
            lambda path: path.exists() and (_ for _ in ()).throw(KeyboardInterrupt),
        )
        with pytest.raises(KeyboardInterrupt):
            with_copies(cached, tmp_path, 0)._copies.make_room(0)
        monkeypatch.undo()
        assert same_example(cache[0], EXAMPLES[0])


def test_files_that_threads_have_read_do_not_stay_open(
    cached: ObjectStoreLocation, tmp_path: Path
) -> None:
    def read_all() -> None:
        for index in random.sample(range(len(EXAMPLES)), len(EXAMPLES)):
            cache[index]

    with open_cache(with_copies(cached, tmp_path, 0)) as cache:
        threads = [threading.Thread(target=read_all) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        held = {path.split("/shards/")[1].split("/")[0] for path in open_files(tmp_path)}
        assert len(held) <= 2


def open_files(below: Path) -> list[str]:
    """Files of shards below a folder that this process has open, removed ones too."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(descriptor.readlink()))
    return [path for path in found if path.startswith(str(below)) and "/shards/" in path]


def test_threads_read_side_by_side(cached: ObjectStoreLocation, tmp_path: Path) -> None:
    cache, wrong = open_cache(with_copies(cached, tmp_path, 0)), list[object]()

    def read(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for _ in range(12):
                index = rng.randrange(len(EXAMPLES))
                if not same_example(cache[index], EXAMPLES[index]):
                    wrong.append(index)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=read, args=[seed]) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


READER = """
import random, sys
from pathlib import Path
from cache import open_cache
from cache.storage.object_store import ObjectStoreLocation
from tests.cache.examples import same_example
from tests.cache.storage.test_local_copies import EXAMPLES
address, endpoint, copies, seed = sys.argv[1:]
with open_cache(ObjectStoreLocation(address, endpoint, Path(copies), 0)) as cache:
    rng = random.Random(seed)
    print("ready", flush=True)
    for _ in range(40):
        index = rng.randrange(len(EXAMPLES))
        assert same_example(cache[index], EXAMPLES[index])
"""


def test_processes_share_copies_and_one_that_dies_leaves_none_behind(
    cached: ObjectStoreLocation, tmp_path: Path
) -> None:
    def start(seed: int) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-c",
            READER,
            cached.address,
            str(cached.endpoint),
            str(tmp_path),
            str(seed),
        ]
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    readers = [start(seed) for seed in range(3)]
    assert readers[0].stdout is not None
    assert readers[0].stdout.readline() == "ready\n", readers[0].communicate()
    readers[0].kill()
    results = [reader.communicate(timeout=120)[1] for reader in readers]
    assert [reader.returncode for reader in readers] == [-9, 0, 0], results
    location = with_copies(cached, tmp_path, 0)
    (location.folder / "shards" / "partial-000000.zarr").mkdir(
        parents=True
    )  # what one leaves that dies while it brings
    with open_cache(location) as cache:
        for index in (0, len(EXAMPLES) - 1):
            assert same_example(cache[index], EXAMPLES[index])
    assert len(list((location.folder / "shards").iterdir())) == 1


def test_a_bring_that_fails_leaves_nothing_and_lets_go(tmp_path: Path) -> None:
    copies = LocalCopies(tmp_path, "c", 100)

    def fail(staged: Path) -> None:
        staged.mkdir()
        raise OSError("out of reach")

    for _ in range(2):
        with pytest.raises(OSError, match="out of reach"):
            copies.pin("000000.zarr", fail)

    def bring(staged: Path) -> None:
        staged.write_bytes(b"whole")

    for how in (bring, fail):
        with copies.pin("000000.zarr", how):
            pass
    assert (copies.folder / "shards" / "000000.zarr").read_bytes() == b"whole"


def test_the_limit_counts_the_copies_of_all_caches(tmp_path: Path) -> None:
    def bring(copies: LocalCopies) -> Callable[[Path], None]:
        def one(staged: Path) -> None:
            copies.make_room(40, lambda: staged.write_bytes(bytes(40)))

        return one

    caches = [LocalCopies(tmp_path, name, 100) for name in "abc"]
    for copies in caches:
        copies.pin("000000.h5", bring(copies)).release()
    assert [path.parts[-4] for path in sorted(tmp_path.glob("*/cache/shards/*"))] == ["b", "c"]


def test_names_of_copies_tell_which_cache_and_never_collide() -> None:
    names = {
        folder_name(*each)
        for each in [
            ("s3://b/a", None),
            ("s3://b/a", "http://x"),
            ("s3://b-a/", None),
            ("s3://b/a/", None),
        ]
    }
    assert len(names) == 4
    assert all(name.startswith("b-a-") for name in names)


def test_asking_for_shards_ahead_brings_them_and_errors_are_left_to_the_reader(
    cached: ObjectStoreLocation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = with_copies(cached, tmp_path, 10**9)
    with open_cache(location) as cache:
        cache.prefetch(range(len(SHARDS)))
        for _ in range(200):
            if len([p for p in location.folder.glob("shards/*") if "partial" not in p.name]) == len(
                SHARDS
            ):
                break
            threading.Event().wait(0.05)
        brought: list[Any] = []
        monkeypatch.setattr(Bucket, "download", lambda *_: brought.append(1))
        assert all(same_example(cache[index], example) for index, example in enumerate(EXAMPLES))
        assert brought == []
    fresh = with_copies(cached, tmp_path / "fresh", 10**9)
    monkeypatch.setattr(
        Bucket, "download", lambda *_: (_ for _ in ()).throw(OSError("out of reach"))
    )
    with open_cache(fresh) as cache:
        cache.prefetch([0, 1])
        with pytest.raises((OSError, CacheError), match="out of reach"):
            cache[0]


def test_another_process_asks_the_store_itself(cached: ObjectStoreLocation, tmp_path: Path) -> None:
    open_again, arguments = open_cache(with_copies(cached, tmp_path, 5)).__reduce__()
    again: Cache = open_again(*arguments)
    assert (
        again.address,
        again.location.copy_limit,
        again.location.folder.is_relative_to(tmp_path),
    ) == (
        cached.address,
        5,
        True,
    )
