"""A cache in an object store: the same files as in a folder."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache import CacheError, open_cache
from cache.containers import CONTAINER_NAMES
from cache.journal import scan_journal
from cache.names import JOURNAL_NAME
from cache.storage import storage_location
from cache.storage.bucket import Bucket
from cache.storage.object_store import ObjectStoreLocation
from cache.upkeep.convert import convert_cache
from cache.upkeep.verify import verify_cache
from cache.writer import require_resumable
from tests.cache.examples import (
    make_cache,
    make_manifest,
    make_shards,
    same_example,
)
from tests.cache.storage.objects import Store, files_of, objects_of
from tests.cache.storage.server import new_address

SHARDS = make_shards([[5, 3], [4], [7, 1]])


RAGGED = st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=4), min_size=1, max_size=3)


@pytest.mark.parametrize("container", CONTAINER_NAMES)
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lengths=RAGGED, codec=st.sampled_from(["bf16", "klt"]))
def test_the_objects_equal_the_files_of_a_folder(
    container: str, lengths: list[list[int]], codec: str, store: Store
) -> None:
    shards, location = make_shards(lengths), store()
    with tempfile.TemporaryDirectory() as folder:
        root = make_cache(Path(folder) / "c", shards, container, codec=codec)
        make_cache(location, shards, container, codec=codec)
        with open_cache(location) as remote, open_cache(root) as local:
            assert remote.content_digest == local.content_digest
            assert all(same_example(left, right) for left, right in zip(remote, local, strict=True))
        objects, files = objects_of(location), files_of(root)
        if container == "hdf5":  # its files contain their date, and the journal their checksums
            assert {name: len(content or b"") for name, content in objects.items()} == {
                name: len(content) for name, content in files.items()
            }
        else:
            assert objects == files


def test_a_folder_copied_to_a_store_and_back_stays_a_cache(store: Store, tmp_path: Path) -> None:
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


def test_converting_to_a_store_and_back_keeps_the_content(store: Store, tmp_path: Path) -> None:
    root, location = make_cache(tmp_path / "c", SHARDS), store()
    assert convert_cache(root, location, container="hdf5").same_content
    assert convert_cache(location, tmp_path / "back").same_content
    with pytest.raises(CacheError, match="own folder"):
        convert_cache(location, location)


def test_other_objects_and_other_caches_are_refused(store: Store) -> None:
    location = store()
    Bucket(location.address, location.endpoint).put("notes.txt", b"mine")
    with pytest.raises(CacheError, match=r"s3://\S+: not a cache \(it contains 'notes.txt'\)"):
        make_cache(location, SHARDS)
    other = store()
    make_cache(other, SHARDS)
    with pytest.raises(
        CacheError,
        match=r"^s3://\S+: was extracted with other settings \(limit was None, now it is 7",
    ):
        require_resumable(other, make_manifest(SHARDS, limit=7))


def test_a_copied_lock_file_of_a_folder_locks_nothing(store: Store) -> None:
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
def test_a_journal_with_foreign_file_names_creates_no_files(
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


def test_a_replaced_cache_is_noticed(store: Store) -> None:
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


def test_addresses_are_parsed_or_refused() -> None:
    assert storage_location("s3://bucket/a/b/").address == "s3://bucket/a/b"
    without_prefix = ("s3://", "s3://bucket", "s3://bucket/", "s3://bucket//a", "s3://bucket/../a")
    for wrong in (*without_prefix, "gs://bucket/a", "https://x/y"):
        with pytest.raises(CacheError, match=wrong.rstrip("/")):
            storage_location(wrong)
    with pytest.raises(CacheError, match="unknown kind of address"):
        storage_location(Path("s3://bucket/a"))
    location = storage_location("s3://bucket/a", "http://127.0.0.1:9", Path("here"), 5)
    again = storage_location(location.recorded_address, location.endpoint)
    assert (again.address, again.endpoint) == ("s3://bucket/a", "http://127.0.0.1:9")
    assert location.copy_limit == 5


def test_a_missing_server_or_bucket_is_reported(store: Store, tmp_path: Path) -> None:
    nowhere = ObjectStoreLocation(new_address(), "http://127.0.0.1:1", tmp_path)
    with pytest.raises(OSError, match="the object store does not answer"):
        open_cache(nowhere)
    with pytest.raises(CacheError, match="s3://nobucket/x: there is no such bucket"):
        open_cache(ObjectStoreLocation("s3://nobucket/x", store().endpoint, tmp_path))
    with pytest.raises(CacheError, match=r"s3://bucket/\S+: not a cache"):
        open_cache(store())
