"""The queue assigns shards in order, and duplicates after the shards that store their text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache import open_cache
from pipeline.extract.engines.queue import ShardQueue
from pipeline.extract.plan import ExtractPlan
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from tests.conftest import write_rows


@pytest.fixture
def plan_with_duplicates(
    embedded_settings: Callable[..., ExtractSettings], tmp_path: Path
) -> ExtractPlan:
    """Return a plan of one example per shard: 0 to 5, then copies of 0 to 4, then another of 0."""
    texts = [f"What is {number} plus {number * 7}? " * 12 for number in range(6)]
    rows = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": "It depends."}]
        for text in texts
    ]
    path = write_rows(
        tmp_path / "rows.jsonl",
        [{"messages": row} for row in [*rows, rows[0], *rows[1:5], rows[0]]],
    )
    return prepare(embedded_settings(dataset=str(path), limit=None, shard_tokens=1))


def test_a_shard_of_duplicates_depends_on_the_shard_that_stores_their_text(
    plan_with_duplicates: ExtractPlan,
) -> None:
    queue = ShardQueue(plan_with_duplicates, {})
    assert len(queue) == 12
    assert [queue.dependencies(shard) for shard in range(6)] == [set()] * 6
    assert [queue.dependencies(shard) for shard in range(6, 12)] == [{0}, {1}, {2}, {3}, {4}, {0}]


def test_published_shards_release_those_that_wait_for_them(
    plan_with_duplicates: ExtractPlan,
) -> None:
    plan = plan_with_duplicates
    published: dict[int, Any] = {}
    queue = ShardQueue(plan, published)
    assert [queue.take() for _ in range(7)] == [0, 1, 2, 3, 4, 5, None]
    result = extract(plan)
    with open_cache(result.cache) as cache:
        published[0] = cache.records[0]
        queue.mark_published(0)
        assert [queue.take() for _ in range(3)] == [6, 11, None]
        queue.give_back(11)
        assert (queue.take(), len(queue), queue.unusable) == (11, 11, set())
