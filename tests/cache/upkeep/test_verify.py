"""Verify: besides flipped bytes, it finds what cannot be hidden states, however well it is
sealed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from cache import CacheError, Example, write_cache
from cache.containers import CONTAINER_NAMES
from cache.upkeep.summary import published_bytes, summarise_cache
from cache.upkeep.verify import verify_cache
from tests.cache.examples import (
    make_attachments,
    make_cache,
    make_content,
    make_manifest,
    make_shards,
)

LENGTHS = [[5, 3], [4, 9, 2], [7]]


@pytest.mark.parametrize("name", CONTAINER_NAMES)
def test_a_whole_cache_is_whole(name: str, tmp_path: Path) -> None:
    root = make_cache(tmp_path / "c", make_shards(LENGTHS), name)
    seen: list[int] = []
    found = verify_cache(root, seen.append)
    assert (found.whole, found.damage, found.strays, found.missing_shards) == (True, [], [], [])
    assert (found.shards, found.examples, found.tokens) == (3, 6, 30)
    assert sum(seen) == found.bytes == published_bytes(root) == summarise_cache(root)["bytes"]
    assert found.content_digest == summarise_cache(root)["content_digest"]


def test_a_cache_in_work_is_not_whole_and_not_damaged(tmp_path: Path) -> None:
    root = make_cache(tmp_path / "c", make_shards(LENGTHS), publish=[0, 2])
    found = verify_cache(root)
    assert (found.whole, found.damage, found.missing_shards, found.content_digest) == (
        False,
        [],
        [1],
        None,
    )
    assert found.damaged_shards() == [1]


def set_value(array: str, value: float) -> Callable[[Example], None]:
    def change(example: Example) -> None:
        target = example.hidden_states[0] if array == "hidden_states" else getattr(example, array)
        target[(1, 2) if target.ndim == 2 else 1] = value

    return change


IMPOSSIBLE = {
    "token id over the vocabulary": (set_value("input_ids", 1000), "outside the vocabulary"),
    "negative token id": (set_value("input_ids", -1), "outside the vocabulary"),
    "NaN": (
        set_value("hidden_states", float("nan")),
        "hidden_states/0: values that are not finite",
    ),
    "infinity": (
        set_value("hidden_states", -float("inf")),
        "hidden_states/0: values that are not finite",
    ),
}


@pytest.mark.parametrize("name", CONTAINER_NAMES)
@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_no_extract_can_have_written_is_named(what: str, name: str, tmp_path: Path) -> None:
    change, said = IMPOSSIBLE[what]
    shards = make_shards(LENGTHS)
    change(shards[1][1])
    (damage,) = verify_cache(make_cache(tmp_path / "c", shards, name)).damage
    assert said in damage.what
    assert (damage.shard, damage.examples, damage.row_ids) == (1, [3], [shards[1][1].row_id])


def test_a_loss_mask_of_other_values_is_found(tmp_path: Path) -> None:
    shards = make_shards(LENGTHS)
    odd = np.zeros(9, np.uint8)
    odd[3] = 7
    with write_cache(
        tmp_path / "c", make_manifest(shards), make_attachments(tmp_path / "c")
    ) as writer:
        for shard, examples in enumerate(shards):
            content = make_content(examples)
            if shard == 1:
                bad = np.concatenate(
                    [
                        content.loss_mask[:4].astype(np.uint8),
                        odd,
                        content.loss_mask[13:].astype(np.uint8),
                    ]
                )
                content = replace(content, loss_mask=bad)
            writer.publish(shard, content)
    (damage,) = verify_cache(tmp_path / "c").damage
    assert "loss mask" in damage.what
    assert damage.row_ids == [shards[1][1].row_id]


def test_a_row_that_stands_in_it_twice_is_found(tmp_path: Path) -> None:
    shards = make_shards(LENGTHS)
    shards[2] = [
        Example(
            shards[0][0].row_id,
            *(getattr(shards[2][0], n) for n in ("input_ids", "loss_mask", "hidden_states")),
        )
    ]
    (damage,) = verify_cache(make_cache(tmp_path / "c", shards)).damage
    assert (damage.file, damage.row_ids) == ("journal.jsonl", [shards[0][0].row_id])


def every_bfloat16() -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    return np.arange(1 << 16, dtype=np.uint16).reshape(-1, 8)


def test_every_bit_pattern_is_told_finite_or_not_as_float32_tells(tmp_path: Path) -> None:
    bits = every_bfloat16()
    finite = np.isfinite(bits.view(ml_dtypes.bfloat16).astype(np.float32)).all(axis=1)
    ids = np.ones(1, np.int32)
    examples: Sequence[Example] = [
        Example(str(i), ids, ids > 0, {-1: row[None].view(ml_dtypes.bfloat16)})
        for i, row in enumerate(bits)
    ]
    (damage,) = verify_cache(make_cache(tmp_path / "c", [examples])).damage
    assert damage.examples == np.flatnonzero(~finite).tolist()


def test_without_manifest_and_journal_there_is_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no such folder"):
        verify_cache(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CacheError, match="not a cache"):
        verify_cache(tmp_path / "empty")
