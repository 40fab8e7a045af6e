"""The prefixes of a journal: contradictory and missing ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cache import DamagedCacheError, open_cache
from cache.containers import CONTAINER_NAMES
from cache.journal import Journal, scan_journal
from cache.shard.prefixes import Prefixes
from cache.shard.record import ShardRecord
from cache.upkeep.verify import verify_cache
from tests.cache.shared_examples import make_shared

every_format = pytest.mark.parametrize("container", CONTAINER_NAMES)


def rewrite_records(root: Path, change: Callable[[list[ShardRecord]], list[ShardRecord]]) -> None:
    """Change the records of the journal, with valid seals."""
    journal = scan_journal(root)
    records = change([journal.records[shard] for shard in sorted(journal.records)])
    Journal(journal.manifest, {record.shard: record for record in records}, []).write(root)


def changed(
    records: list[ShardRecord], shard: int, name: str, place: int, value: int
) -> list[ShardRecord]:
    values = getattr(records[shard], name).copy()
    values[place] = value
    return [*records[:shard], replace(records[shard], **{name: values}), *records[shard + 1 :]]


CONTRADICTIONS = {
    "a missing prefix": ("prefixes", 2, 1, 77, "needs shared prefix 77, which no shard"),
    "a prefix of other length": ("prefixes", 2, 2, 2, "tokens, its segments"),
    "a prefix removed": ("prefixes", 2, 2, -1, "tokens, its segments"),
    "a prefix listed twice": ("prefix_numbers", 1, 0, 1, "twice"),
    "another number": ("prefix_numbers", 2, 0, 9, "needs shared prefix 3"),
}


@every_format
@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_a_contradictory_journal_is_refused(kind: str, container: str, tmp_path: Path) -> None:
    name, shard, place, value, message = CONTRADICTIONS[kind]
    root = make_shared().write(tmp_path / "c", container)
    rewrite_records(root, lambda records: changed(records, shard, name, place, value))
    with pytest.raises(DamagedCacheError, match=message):
        open_cache(root)
    damage = verify_cache(root).damage
    assert any(item.file == "journal.jsonl" and message in item.what for item in damage)


def test_records_without_the_shard_that_stores_a_prefix_are_refused(tmp_path: Path) -> None:
    cache = open_cache(make_shared().write(tmp_path / "c"))
    assert len(Prefixes(cache.records)) == 4
    for records in (
        cache.records[1:],
        cache.records[2:],
        [cache.records[3]],
        [cache.records[0], cache.records[2]],
    ):
        with pytest.raises(
            DamagedCacheError,
            match=r"needs shared prefix [12], which no shard in the journal stores",
        ):
            Prefixes(records)


def test_cyclic_prefixes_are_refused(tmp_path: Path) -> None:
    root = make_shared().write(tmp_path / "c")
    rewrite_records(root, lambda records: changed(records, 0, "prefixes", 0, 1))
    with pytest.raises(DamagedCacheError, match="not a shard record"):
        open_cache(root)
