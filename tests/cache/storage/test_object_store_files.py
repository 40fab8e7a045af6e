"""Writing to an object store: failures of any request, and concurrent readers and writers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from cache import CacheError, DamagedCacheError, open_cache
from cache.journal import scan_journal
from cache.names import JOURNAL_NAME, MANIFEST_NAME
from cache.storage.bucket import Bucket
from cache.storage.conditional_put import PROBE
from cache.storage.journal_entries import ENTRIES
from cache.storage.object_store import ObjectStoreLocation
from cache.upkeep.summary import summarise_cache
from cache.upkeep.verify import verify_cache
from cache.writer import require_resumable, write_cache
from tests.cache.examples import (
    make_attachments,
    make_cache,
    make_content,
    make_manifest,
    make_shards,
    same_example,
)
from tests.cache.storage.objects import Store, objects_of

SHARDS = make_shards([[5, 3], [4], [7, 1]])


class CrashError(BaseException):
    """The simulated death of a process."""


@contextmanager
def failing(number: int, error: BaseException, *, after: bool) -> Iterator[list[int]]:
    """Fail the n-th request that changes the store, before or after its effect."""
    count = [0]

    def changed(method: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(self: Bucket, *args: Any, **kwargs: Any) -> Any:
            if PROBE in str(args[0]):  # its failures are tested in test_conditional_put.py
                return method(self, *args, **kwargs)
            count[0] += 1
            if count[0] == number and not after:
                raise error
            result = method(self, *args, **kwargs)
            if count[0] == number:
                raise error
            return result

        return wrapped

    with mock.patch.multiple(
        Bucket,
        **{name: changed(getattr(Bucket, name)) for name in ("put", "put_if", "upload", "delete")},
    ):
        yield count


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", [CrashError, OSError])
def test_a_cache_is_resumed_after_any_failed_request(
    after: bool, kind: type[BaseException], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # each failure ends its process
    monkeypatch.setattr("cache.storage.lease.has_died", lambda holder: True)
    with failing(0, kind(), after=after) as count:
        make_cache(store(), SHARDS, "hdf5")
    assert count[0] >= 8
    for number in range(1, count[0] + 1):
        location, published = store(), set[int]()
        with failing(number, kind("unreachable"), after=after), pytest.raises((kind, CacheError)):
            make_cache(location, SHARDS, "hdf5")
            if number == count[0]:
                # the last request releases the lease, and its failure is suppressed
                raise kind
        location.read()
        if (location.folder / MANIFEST_NAME).exists():
            assert verify_cache(location).damage == []
            published = set(scan_journal(location.folder).records)
        make_cache(location, SHARDS, "hdf5")
        assert published <= set(scan_journal(location.folder).records)
        with open_cache(location) as remote:
            assert all(
                same_example(a, b)
                for a, b in zip(remote, [e for shard in SHARDS for e in shard], strict=True)
            )
        assert verify_cache(location).whole
        assert not [name for name in objects_of(location) if name.startswith(f"{ENTRIES}/")]


def test_a_shard_without_a_journal_entry_does_not_exist(store: Store, tmp_path: Path) -> None:
    location = store()
    with write_cache(location, make_manifest(SHARDS), make_attachments(tmp_path / "x")) as writer:
        writer.publish(0, make_content(SHARDS[0]))
        assert summarise_cache(location)["shards"] == 1
        with mock.patch.object(Bucket, "put_if", side_effect=CrashError), pytest.raises(CrashError):
            writer.publish(1, make_content(SHARDS[1]))
        assert any(name.startswith("shards/000001") for name in objects_of(location))
        assert summarise_cache(location)["shards"] == 1
    with pytest.raises(CacheError, match=r"^s3://bucket/\S+: not complete \(1 of 3 shards\)"):
        open_cache(location)
    assert require_resumable(location, make_manifest(SHARDS)) == [1, 2]


def test_an_entry_of_another_process_is_never_replaced(store: Store, tmp_path: Path) -> None:
    location = store()
    with write_cache(location, make_manifest(SHARDS), make_attachments(tmp_path / "x")) as writer:
        writer.publish(0, make_content(SHARDS[0]))
        before = objects_of(location)[f"{ENTRIES}/000000.jsonl"]
        with pytest.raises(CacheError, match="another process has published shard 0"):
            writer.publish(0, make_content(SHARDS[1]))
    assert objects_of(location)[f"{ENTRIES}/000000.jsonl"] == before


def test_missing_objects_are_reported_before_costly_work(store: Store) -> None:
    location = store()
    make_cache(location, SHARDS)
    bucket = Bucket(location.address, location.endpoint)
    bucket.delete([min(bucket.sizes("shards/000001.zarr"))])
    with pytest.raises(DamagedCacheError, match=r"s3://\S+/shards/000001.zarr\S+: missing"):
        require_resumable(location, make_manifest(SHARDS))


def test_readers_on_the_writers_machine_do_not_disturb_it(store: Store, tmp_path: Path) -> None:
    location = store()
    reader = ObjectStoreLocation(*location.__reduce__()[1])
    with write_cache(location, make_manifest(SHARDS), make_attachments(tmp_path / "x")) as writer:
        for shard in (2, 0, 1):  # workers finish in any order
            writer.publish(shard, make_content(SHARDS[shard]))
            assert summarise_cache(reader)["shards"] == len(writer.published)
            with pytest.raises(CacheError, match="another process is writing"):
                make_cache(reader, SHARDS)
            elsewhere = ObjectStoreLocation(
                location.address, location.endpoint, tmp_path / f"elsewhere-{shard}"
            )
            assert summarise_cache(elsewhere)["shards"] == len(writer.published)
    assert verify_cache(reader).whole
    assert open_cache(
        ObjectStoreLocation(location.address, location.endpoint, tmp_path / "new")
    ).content_digest


def test_a_late_entry_for_a_published_shard_is_ignored(store: Store) -> None:
    location = store()
    make_cache(location, SHARDS)
    digest = open_cache(location).content_digest
    late = make_cache(store(), make_shards([[9, 9]]))
    line = Bucket(late.address, late.endpoint).get(JOURNAL_NAME) or b""
    Bucket(location.address, location.endpoint).put(
        f"{ENTRIES}/000000.jsonl", line.splitlines(keepends=True)[1]
    )
    assert open_cache(location).content_digest == digest
    assert verify_cache(location).whole
