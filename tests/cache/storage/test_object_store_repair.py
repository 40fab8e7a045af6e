"""Verification and repair of a cache in an object store."""

from __future__ import annotations

from typing import Any

import pytest

from cache import CacheError, open_cache
from cache.names import JOURNAL_NAME, MANIFEST_NAME
from cache.storage.bucket import Bucket
from cache.storage.object_store import ObjectStoreLocation
from cache.upkeep.repair import repair_cache
from cache.upkeep.verify import verify_cache
from tests.cache.examples import (
    make_cache,
    make_content,
    make_shards,
)
from tests.cache.storage.objects import Store

SHARDS = make_shards([[5, 3], [4], [7, 1]])


def test_damage_is_named_and_repaired_despite_intact_copies(store: Store) -> None:
    location = store()
    make_cache(location, SHARDS)
    digest = open_cache(location).content_digest
    assert len(list(open_cache(location))) == 5  # downloads all shards
    bucket = Bucket(location.address, location.endpoint)
    name = "shards/000001.zarr/hidden_states/-1/c/0/0"
    content = bytearray(bucket.get(name) or b"")
    content[3] ^= 1
    bucket.put(name, bytes(content))
    bucket.delete(bucket.sizes("shards/000002.zarr"))
    bucket.put("stray", b"")
    result = verify_cache(location)
    assert [(damage.file, damage.shard) for damage in result.damage] == [
        (name, 1),
        ("shards/000002.zarr", 2),
    ]
    assert result.strays == ["stray"]
    with repair_cache(location) as repairer:
        assert repairer.shards == [1, 2]
        for shard in repairer.shards:
            assert repairer.replace(
                shard, make_content(SHARDS[shard]), non_finite={}, provenance={}
            )
    assert verify_cache(location).whole
    assert open_cache(location).content_digest == digest


@pytest.mark.parametrize("lost", [MANIFEST_NAME, JOURNAL_NAME])
def test_a_lost_manifest_or_journal_is_restored(lost: str, store: Store) -> None:
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
        for shard in repairer.shards:
            repairer.replace(shard, make_content(SHARDS[shard]), non_finite={}, provenance={})
    assert open_cache(location).content_digest == digest
    assert verify_cache(location).whole


def test_lost_lines_are_restored_from_the_shards(store: Store) -> None:
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


def test_denied_access_is_not_reported_as_damage(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = store()
    make_cache(location, SHARDS)
    plain, calls = Bucket.download, list[int]()

    def denied(self: Bucket, *arguments: Any) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise CacheError("access is denied")
        plain(self, *arguments)

    monkeypatch.setattr(Bucket, "download", denied)
    with pytest.raises(CacheError, match="access is denied"):
        verify_cache(location)
