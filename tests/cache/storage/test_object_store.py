"""A cache in an object store: what is written is read back, whoever dies; and it is the cache that
a folder would hold."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache import CacheError, DamagedCacheError, open_cache
from cache.containers import CONTAINER_NAMES
from cache.journal import scan_journal
from cache.names import JOURNAL_NAME, MANIFEST_NAME
from cache.storage import storage_location
from cache.storage.bucket import Bucket
from cache.storage.conditional_put import PROBE
from cache.storage.journal_entries import ENTRIES
from cache.storage.object_store import ObjectStoreLocation
from cache.upkeep.convert import convert_cache
from cache.upkeep.repair import repair_cache
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
from tests.cache.storage.server import new_address

SHARDS = make_shards([[5, 3], [4], [7, 1]])
RAGGED = st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=4), min_size=1, max_size=3)
Store = Callable[[], ObjectStoreLocation]


def objects_of(location: ObjectStoreLocation) -> dict[str, bytes | None]:
    bucket = Bucket(location.address, location.endpoint)
    return bucket.get_all(bucket.sizes())


def files_of(root: Path) -> dict[str, bytes]:
    return {
        p.relative_to(root).as_posix(): p.read_bytes()
        for p in root.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


@pytest.mark.parametrize("container", CONTAINER_NAMES)
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lengths=RAGGED, codec=st.sampled_from(["bf16", "klt"]))
def test_it_is_the_cache_that_a_folder_would_hold(
    container: str, lengths: list[list[int]], codec: str, store: Store
) -> None:
    shards, location = make_shards(lengths), store()
    with tempfile.TemporaryDirectory() as folder:
        root = make_cache(Path(folder) / "c", shards, container, codec=codec)
        make_cache(location, shards, container, codec=codec)
        with open_cache(location) as remote, open_cache(root) as local:
            assert remote.content_digest == local.content_digest
            assert all(same_example(left, right) for left, right in zip(remote, local, strict=True))
        there, here = objects_of(location), files_of(root)
        if container == "hdf5":  # its files tell when they were made, and so does the journal
            there, here = (
                {name: len(content or b"") for name, content in each.items()}
                for each in (there, here)
            )
        assert there == here


def test_a_folder_that_is_copied_there_is_a_cache_and_back(store: Store, tmp_path: Path) -> None:
    root, location = make_cache(tmp_path / "c", SHARDS), store()
    names = sorted(files_of(root))
    Bucket(location.address, location.endpoint).upload(root, names)
    digest = open_cache(location).content_digest
    assert digest == open_cache(root).content_digest
    for name, content in objects_of(location).items():
        path = tmp_path / "back" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content or b"")
    assert open_cache(tmp_path / "back").content_digest == digest
    assert verify_cache(tmp_path / "back").whole


def test_converted_there_and_back_it_is_the_same(store: Store, tmp_path: Path) -> None:
    root, location = make_cache(tmp_path / "c", SHARDS), store()
    assert convert_cache(root, location, container="hdf5").same_content
    assert convert_cache(location, tmp_path / "back").same_content
    with pytest.raises(CacheError, match="own folder"):
        convert_cache(location, location)


class CrashError(BaseException):
    """The process is gone."""


@contextmanager
def failing(number: int, error: BaseException, *, after: bool) -> Iterator[list[int]]:
    """The request of this number that changes the store fails, before it is done or after."""
    count = [0]

    def changed(method: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(self: Bucket, *args: Any, **kwargs: Any) -> Any:
            if PROBE in str(
                args[0]
            ):  # of no cache: what fails there is tested in test_conditional_put.py
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
def test_whichever_request_fails_the_cache_is_gone_on_with(
    after: bool, kind: type[BaseException], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "cache.storage.lease.has_died", lambda holder: True
    )  # each failure ends its process
    with failing(0, kind(), after=after) as count:
        make_cache(store(), SHARDS, "hdf5")
    assert count[0] >= 8
    for number in range(1, count[0] + 1):
        location, published = store(), set[int]()
        with failing(number, kind("out of reach"), after=after), pytest.raises((kind, CacheError)):
            make_cache(location, SHARDS, "hdf5")
            if number == count[0]:
                # the last request gives the lease back: what fails there runs out by itself
                raise kind
        location.read()
        if (location.folder / MANIFEST_NAME).exists():
            found = verify_cache(location)
            assert found.damage == []
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


def test_what_is_not_in_the_journal_does_not_exist(store: Store, tmp_path: Path) -> None:
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


def test_an_entry_that_another_process_has_put_is_never_replaced(
    store: Store, tmp_path: Path
) -> None:
    location = store()
    with write_cache(location, make_manifest(SHARDS), make_attachments(tmp_path / "x")) as writer:
        writer.publish(0, make_content(SHARDS[0]))
        before = objects_of(location)[f"{ENTRIES}/000000.jsonl"]
        with pytest.raises(CacheError, match="another process has published shard 0"):
            writer.publish(0, make_content(SHARDS[1]))
    assert objects_of(location)[f"{ENTRIES}/000000.jsonl"] == before


def test_other_things_and_other_caches_are_refused(store: Store) -> None:
    location = store()
    Bucket(location.address, location.endpoint).put("notes.txt", b"mine")
    with pytest.raises(CacheError, match=r"s3://\S+: not a cache \(it holds 'notes.txt'\)"):
        make_cache(location, SHARDS)
    other = store()
    make_cache(other, SHARDS)
    with pytest.raises(
        CacheError,
        match=r"^s3://\S+: holds another run's hidden states \(limit was None, now it is 7",
    ):
        require_resumable(other, make_manifest(SHARDS, limit=7))


def test_a_shard_whose_objects_are_gone_is_told_before_the_work(store: Store) -> None:
    location = store()
    make_cache(location, SHARDS)
    bucket = Bucket(location.address, location.endpoint)
    bucket.delete([min(bucket.sizes("shards/000001.zarr"))])
    with pytest.raises(DamagedCacheError, match=r"s3://\S+/shards/000001.zarr\S+: missing"):
        require_resumable(location, make_manifest(SHARDS))


def test_damage_is_named_and_mended_and_copies_do_not_hide_it(store: Store) -> None:
    location = store()
    make_cache(location, SHARDS)
    digest = open_cache(location).content_digest
    assert len(list(open_cache(location))) == 5  # copies of all shards are here
    bucket = Bucket(location.address, location.endpoint)
    name = "shards/000001.zarr/hidden_states/-1/c/0/0"
    content = bytearray(bucket.get(name) or b"")
    content[3] ^= 1
    bucket.put(name, bytes(content))
    bucket.delete(bucket.sizes("shards/000002.zarr"))
    bucket.put("stray", b"")
    found = verify_cache(location)
    assert [(damage.file, damage.shard) for damage in found.damage] == [
        (name, 1),
        ("shards/000002.zarr", 2),
    ]
    assert found.strays == ["stray"]
    with repair_cache(location) as repairer:
        assert repairer.shards == [1, 2]
        for shard in repairer.shards:
            assert repairer.replace(
                shard, make_content(SHARDS[shard]), non_finite={}, provenance={}
            )
    assert verify_cache(location).whole
    assert open_cache(location).content_digest == digest


@pytest.mark.parametrize("lost", [MANIFEST_NAME, JOURNAL_NAME])
def test_a_lost_manifest_or_journal_is_put_back(lost: str, store: Store) -> None:
    location = store()
    make_cache(location, SHARDS)
    assert len(list(open_cache(location))) == 5
    digest = open_cache(location).content_digest
    bucket = Bucket(location.address, location.endpoint)
    bucket.delete([lost])
    with pytest.raises(CacheError):
        open_cache(location)
    if lost == JOURNAL_NAME:
        bucket.put(JOURNAL_NAME, b"")
    with repair_cache(location) as repairer:
        for shard in repairer.shards:  # told from the shards where copies are here
            repairer.replace(shard, make_content(SHARDS[shard]), non_finite={}, provenance={})
    assert open_cache(location).content_digest == digest
    assert verify_cache(location).whole


def test_lost_lines_are_told_from_the_shards_without_the_teacher(store: Store) -> None:
    location = store()
    make_cache(location, SHARDS)
    digest = open_cache(location).content_digest
    bucket = Bucket(location.address, location.endpoint)
    lines = (bucket.get(JOURNAL_NAME) or b"").splitlines(keepends=True)
    bucket.put(JOURNAL_NAME, b"".join(lines[:2]))
    with repair_cache(
        ObjectStoreLocation(location.address, location.endpoint, location.folder / "new")
    ) as repairer:
        assert (repairer.restored, repairer.shards) == ([1, 2], [])
    assert open_cache(location).content_digest == digest


def test_readers_beside_a_writer_on_the_same_machine_neither_harm_it_nor_what_it_publishes(
    store: Store, tmp_path: Path
) -> None:
    location = store()
    beside = ObjectStoreLocation(*location.__reduce__()[1])
    with write_cache(location, make_manifest(SHARDS), make_attachments(tmp_path / "x")) as writer:
        for shard in (2, 0, 1):  # in whatever order workers give them
            writer.publish(shard, make_content(SHARDS[shard]))
            assert summarise_cache(beside)["shards"] == len(writer.published)
            with pytest.raises(CacheError, match="another process is writing"):
                make_cache(beside, SHARDS)
            elsewhere = ObjectStoreLocation(
                location.address, location.endpoint, tmp_path / f"elsewhere-{shard}"
            )
            assert summarise_cache(elsewhere)["shards"] == len(writer.published)
    assert verify_cache(beside).whole
    assert open_cache(
        ObjectStoreLocation(location.address, location.endpoint, tmp_path / "new")
    ).content_digest


def test_what_a_late_writer_says_of_a_published_shard_counts_for_nothing(store: Store) -> None:
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


def test_access_that_is_denied_is_not_taken_for_damage(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = store()
    make_cache(location, SHARDS)
    plain, asked = Bucket.download, list[int]()

    def denied(self: Bucket, *arguments: Any) -> None:
        asked.append(1)
        if len(asked) > 1:
            raise CacheError("access is denied")
        plain(self, *arguments)

    monkeypatch.setattr(Bucket, "download", denied)
    with pytest.raises(CacheError, match="access is denied"):
        verify_cache(location)


def test_a_folders_lock_that_was_copied_there_locks_nothing(store: Store) -> None:
    location = store()
    make_cache(location, SHARDS)
    Bucket(location.address, location.endpoint).put(".lock", b"")
    make_cache(location, SHARDS)


OUTSIDE = [
    "shards/../../../../outside",
    "/outside",
    "shards/000001.zarr/x",
    "manifest.json",
    "shards/a\0b/c",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_journal_that_names_other_files_makes_no_files(
    name: str, store: Store, tmp_path: Path
) -> None:
    root = make_cache(tmp_path / "c", SHARDS)
    manifest = open_cache(root).manifest
    records = scan_journal(root).records
    records[0].files[name] = (4, "0" * 32)
    text = (root / JOURNAL_NAME).read_bytes().splitlines(keepends=True)
    text[1] = records[0].line()
    (root / JOURNAL_NAME).write_bytes(b"".join(text))
    location = store()
    Bucket(location.address, location.endpoint).upload(root, sorted(files_of(root)))
    cache = open_cache(location)
    assert cache.manifest == manifest
    with pytest.raises(CacheError):
        cache[0]
    assert not list(tmp_path.rglob("outside"))


def test_a_cache_that_was_replaced_is_seen(store: Store) -> None:
    location, others = store(), make_shards([[9, 2], [4], [1]])
    make_cache(location, SHARDS)
    assert len(list(open_cache(location))) == 5
    bucket = Bucket(location.address, location.endpoint)
    bucket.delete(bucket.sizes())
    make_cache(location, others)
    with open_cache(location) as cache:
        assert all(
            same_example(left, right)
            for left, right in zip(cache, [e for shard in others for e in shard], strict=True)
        )
    shutil.rmtree(location.folder)
    assert len(list(open_cache(location))) == 4


def test_addresses_are_understood_or_refused() -> None:
    assert storage_location("s3://bucket/a/b/").address == "s3://bucket/a/b"
    for wrong in (
        "s3://",
        "s3://bucket",
        "s3://bucket/",
        "s3://bucket//a",
        "s3://bucket/../a",
        "gs://bucket/a",
        "https://x/y",
    ):
        with pytest.raises(CacheError, match=wrong.rstrip("/")):
            storage_location(wrong)
    with pytest.raises(CacheError, match="unknown kind of address"):
        storage_location(Path("s3://bucket/a"))
    location = storage_location("s3://bucket/a", "http://127.0.0.1:9", Path("here"), 5)
    again = storage_location(location.recorded_address, location.endpoint)
    assert (again.address, again.endpoint, location.copy_limit) == (
        "s3://bucket/a",
        "http://127.0.0.1:9",
        5,
    )


def test_a_server_or_bucket_that_is_not_there_is_told(store: Store, tmp_path: Path) -> None:
    nowhere = ObjectStoreLocation(new_address(), "http://127.0.0.1:1", tmp_path)
    with pytest.raises(OSError, match="the object store does not answer"):
        open_cache(nowhere)
    with pytest.raises(CacheError, match="s3://nobucket/x: there is no such bucket"):
        open_cache(ObjectStoreLocation("s3://nobucket/x", store().endpoint, tmp_path))
    with pytest.raises(CacheError, match=r"s3://bucket/\S+: not a cache"):
        open_cache(store())
