"""Reading a cache, also in other processes and threads, with bounded files and memory."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import CacheError, DamagedCacheError, Example, files, open_cache
from cache.containers import CONTAINER_NAMES
from cache.shard import pool
from tests.cache.examples import make_cache, make_shards, same_example

LENGTHS = [[5, 300, 1], [257], [64, 64], [2, 900], [13]]


@pytest.fixture(scope="module", params=CONTAINER_NAMES)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Example]]:
    shards = make_shards(LENGTHS, layers=(-1, 3))
    return make_cache(tmp_path_factory.mktemp("c") / "c", shards, request.param), [
        e for shard in shards for e in shard
    ]


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_examples_are_read_in_any_order(
    made: tuple[Path, list[Example]], data: st.DataObject
) -> None:
    root, written = made
    pool._OPEN_FILES = data.draw(st.sampled_from([1, 8, 256]))
    pool._TOKEN_BYTES = data.draw(st.sampled_from([0, 600, 1 << 20]))
    try:
        with open_cache(root) as store:
            for index in data.draw(
                st.lists(st.integers(-len(written), len(written) - 1), max_size=40)
            ):
                assert same_example(store[index], written[index])
                assert list(store.example(index, (3,)).hidden_states) == [3]
    finally:
        pool._OPEN_FILES, pool._TOKEN_BYTES = 256, 64 << 20


def test_examples_do_not_share_memory(made: tuple[Path, list[Example]]) -> None:
    root, written = made
    store = open_cache(root)
    example = store[1]
    example.input_ids[:] = 0
    example.loss_mask[:] = False
    example.hidden_states[-1][:] = 0
    assert same_example(store[1], written[1])


def _read(store: object, indices: list[int], answer: object) -> None:
    answer.put([store[index].input_ids.sum() for index in indices])  # type: ignore[attr-defined,index]


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_other_processes_read_the_same_examples(how: str, made: tuple[Path, list[Example]]) -> None:
    root, written = made
    store = open_cache(root)
    assert same_example(store[0], written[0])  # files are open before the fork
    context = multiprocessing.get_context(how)
    answer = context.Queue()
    process = context.Process(target=_read, args=(store, list(range(len(written))), answer))
    process.start()
    assert answer.get(timeout=60) == [example.input_ids.sum() for example in written]
    process.join()
    assert all(same_example(read, example) for read, example in zip(store, written, strict=True))
    assert same_example(pickle.loads(pickle.dumps(store))[2], written[2])


def test_threads_read_the_same_examples(made: tuple[Path, list[Example]]) -> None:
    root, written = made
    store = open_cache(root)
    order = random.Random(0).choices(range(len(written)), k=400)
    with ThreadPoolExecutor(4) as pool:
        assert all(
            same_example(*pair)
            for pair in zip(
                pool.map(store.example, order), map(written.__getitem__, order), strict=True
            )
        )


def test_checksums_are_compared_once_in_a_process_and_its_forks(
    made: tuple[Path, list[Example]], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Path] = []
    checksum_of = files.checksum_of

    def counted(path: Path) -> str:
        compared.append(path)
        return checksum_of(path)

    monkeypatch.setattr(files, "checksum_of", counted)
    store = open_cache(made[0])
    compared.clear()
    if (child := os.fork()) == 0:
        status = 1
        try:
            list(store)
            list(store)
            status = int(len(set(compared)) != len(compared) or not compared)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    list(store)
    assert compared == []  # the fork has compared them
    list(open_cache(made[0]))
    shard_files = [path for path in compared if path.is_relative_to(made[0] / "shards")]
    assert len(shard_files) == sum(len(record.files) for record in store.records)


def test_a_file_cut_after_opening_is_an_error_not_a_crash(tmp_path: Path) -> None:
    for name in CONTAINER_NAMES:
        root = make_cache(tmp_path / name, make_shards([[400, 500]]), name)
        store = open_cache(root)
        assert len(store[1]) == 500
        victim = max(
            (path for path in (root / "shards").rglob("*") if path.is_file()),
            key=lambda path: path.stat().st_size,
        )
        os.truncate(victim, victim.stat().st_size // 2)
        with pytest.raises(
            DamagedCacheError,
            match=r"shard 0, example 1 \(row row-0-1-é\).*cut after it was opened",
        ):
            _ = [store[1], store[0]]


def test_a_damaged_shard_is_named_with_the_example(tmp_path: Path) -> None:
    root = make_cache(tmp_path / "c", make_shards([[4], [5, 6]]), "hdf5")
    path = root / "shards" / "000001.h5"
    content = bytearray(path.read_bytes())
    content[-10] ^= 4
    path.write_bytes(content)
    store = open_cache(root)
    assert len(store[0]) == 4
    with pytest.raises(
        DamagedCacheError,
        match=r"shard 1, example 2 \(row row-1-1-é\): .*000001\.h5: its bytes have changed",
    ):
        _ = store[2]


def test_a_cache_may_have_more_shards_than_open_files(tmp_path: Path) -> None:
    shards = make_shards([[3]] * 300)
    store = open_cache(make_cache(tmp_path / "c", shards, "hdf5"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    pool._TOKEN_BYTES = 0
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 290, limits[1]))
    try:
        assert all(
            same_example(store[i], shards[i][0]) for i in random.Random(0).sample(range(300), 300)
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        pool._TOKEN_BYTES = 64 << 20


def test_a_layer_that_is_not_cached_is_refused(made: tuple[Path, list[Example]]) -> None:
    with pytest.raises(CacheError, match="layer 7 is not cached, only -1, 3"):
        open_cache(made[0]).example(0, [7])


def test_opening_a_cache_reads_no_shard(tmp_path: Path) -> None:
    root = make_cache(tmp_path / "c", make_shards(LENGTHS))
    (root / "shards").rename(tmp_path / "elsewhere")
    store = open_cache(root)
    assert store.lengths.tolist() == [length for shard in LENGTHS for length in shard]
    with pytest.raises(DamagedCacheError, match="missing"):
        _ = store[0]
