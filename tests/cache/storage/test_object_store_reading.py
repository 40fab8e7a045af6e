"""Reading from an object store: correct examples through limited local copies."""

from __future__ import annotations

import contextlib
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache import Cache, CacheError, DamagedCacheError, open_cache
from cache.files import bytes_below
from cache.storage.bucket import Bucket
from cache.storage.object_store import ObjectStoreLocation
from tests.cache.examples import make_cache, same_example
from tests.cache.storage.copies import EXAMPLES, SHARDS, with_copies
from tests.cache.storage.objects import Store

READS = st.lists(st.integers(0, len(EXAMPLES) - 1), max_size=25)


def copy_bytes(location: ObjectStoreLocation) -> int:
    return bytes_below(location.folder / "shards")


@pytest.mark.parametrize("prefetching", [False, True])
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(reads=READS, share=st.sampled_from([0.0, 0.3, 0.6, 1.0]))
def test_reads_are_correct_and_copies_stay_within_the_limit(
    prefetching: bool, cached: ObjectStoreLocation, reads: list[int], share: float, tmp_path: Path
) -> None:
    sizes = [record.bytes for record in open_cache(cached).records]
    limit = int(sum(sizes) * share)
    unlimited = 3 * max(sizes)  # in progress in two threads and the reader
    location = with_copies(cached, tmp_path / f"{limit}-{random.random()}", limit)
    with open_cache(location) as cache:
        for index in reads:
            assert same_example(cache[index], EXAMPLES[index])
            assert copy_bytes(location) <= (
                limit + unlimited if prefetching else max(limit, max(sizes))
            )
            if prefetching:
                cache.prefetch([shard for shard in range(len(sizes)) if (shard + index) % 2])


def test_a_pinned_shard_is_not_removed(cached: ObjectStoreLocation, tmp_path: Path) -> None:
    location = with_copies(cached, tmp_path, 0)
    with open_cache(location) as cache:
        pin = location.read().pin(cache.records[0])
        for index in range(2, len(EXAMPLES)):
            assert same_example(cache[index], EXAMPLES[index])
        assert len(list((location.folder / "shards").iterdir())) == 2
        pin.release()
        assert same_example(cache[3], EXAMPLES[3])
        assert same_example(cache[len(EXAMPLES) - 1], EXAMPLES[-1])
        assert len(list((location.folder / "shards").iterdir())) == 1


def test_a_damaged_copy_is_downloaded_again(cached: ObjectStoreLocation, tmp_path: Path) -> None:
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


def test_a_replaced_copy_is_checked_again(store: Store) -> None:
    location = store()
    make_cache(location, SHARDS)
    bucket = Bucket(location.address, location.endpoint)
    name = "shards/000000.zarr/hidden_states/-1/c/0/0"
    with open_cache(location) as cache:
        assert same_example(cache[0], EXAMPLES[0])
        content = bytearray(bucket.get(name) or b"")
        content[3] ^= 1
        bucket.put(name, bytes(content))
        # as a prefetching thread or another process would
        location.read().pin(cache.records[0], refetch=True).release()
        with pytest.raises(DamagedCacheError, match=f"{name}: its bytes"):
            cache[0]


def test_files_read_by_threads_do_not_stay_open(
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
        shards = {path.split("/shards/")[1].split("/")[0] for path in open_files(tmp_path)}
        assert len(shards) <= 2


def open_files(below: Path) -> list[str]:
    """Return the shard files below a folder that this process has open, removed ones included."""
    paths = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            paths.append(str(descriptor.readlink()))
    return [path for path in paths if path.startswith(str(below)) and "/shards/" in path]


def test_threads_read_concurrently(cached: ObjectStoreLocation, tmp_path: Path) -> None:
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


def test_prefetching_downloads_shards_and_leaves_errors_to_the_reader(
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
        downloads: list[Any] = []
        monkeypatch.setattr(Bucket, "download", lambda *_: downloads.append(1))
        assert all(same_example(cache[index], example) for index, example in enumerate(EXAMPLES))
        assert downloads == []
    fresh = with_copies(cached, tmp_path / "fresh", 10**9)
    monkeypatch.setattr(
        Bucket, "download", lambda *_: (_ for _ in ()).throw(OSError("unreachable"))
    )
    with open_cache(fresh) as cache:
        cache.prefetch([0, 1])
        with pytest.raises((OSError, CacheError), match="unreachable"):
            cache[0]


def test_a_pickled_cache_is_opened_from_the_store(
    cached: ObjectStoreLocation, tmp_path: Path
) -> None:
    open_again, arguments = open_cache(with_copies(cached, tmp_path, 5)).__reduce__()
    again: Cache = open_again(*arguments)
    assert (again.address, again.location.copy_limit) == (cached.address, 5)
    assert again.location.folder.is_relative_to(tmp_path)
