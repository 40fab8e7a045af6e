"""Verification finds flipped bytes, and impossible values even under valid checksums."""

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
    checked: list[int] = []
    result = verify_cache(root, checked.append)
    assert (result.whole, result.damage) == (True, [])
    assert (result.strays, result.missing_shards) == ([], [])
    assert (result.shards, result.examples, result.tokens) == (3, 6, 30)
    assert sum(checked) == result.bytes == published_bytes(root) == summarise_cache(root)["bytes"]
    assert result.content_digest == summarise_cache(root)["content_digest"]


def test_an_incomplete_cache_is_not_whole_and_not_damaged(tmp_path: Path) -> None:
    root = make_cache(tmp_path / "c", make_shards(LENGTHS), publish=[0, 2])
    result = verify_cache(root)
    assert (result.whole, result.damage) == (False, [])
    assert (result.missing_shards, result.content_digest) == ([1], None)
    assert result.damaged_shards() == [1]


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
@pytest.mark.parametrize("value", IMPOSSIBLE)
def test_impossible_values_are_found(value: str, name: str, tmp_path: Path) -> None:
    change, message = IMPOSSIBLE[value]
    shards = make_shards(LENGTHS)
    change(shards[1][1])
    (damage,) = verify_cache(make_cache(tmp_path / "c", shards, name)).damage
    assert message in damage.what
    assert (damage.shard, damage.examples, damage.row_ids) == (1, [3], [shards[1][1].row_id])


def test_loss_mask_values_other_than_0_and_1_are_found(tmp_path: Path) -> None:
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


def test_a_repeated_row_is_found(tmp_path: Path) -> None:
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


def test_every_bfloat16_bit_pattern_is_classified_as_by_float32(tmp_path: Path) -> None:
    bits = every_bfloat16()
    finite = np.isfinite(bits.view(ml_dtypes.bfloat16).astype(np.float32)).all(axis=1)
    ids = np.ones(1, np.int32)
    examples: Sequence[Example] = [
        Example(str(i), ids, ids > 0, {-1: row[None].view(ml_dtypes.bfloat16)})
        for i, row in enumerate(bits)
    ]
    (damage,) = verify_cache(make_cache(tmp_path / "c", [examples])).damage
    assert damage.examples == np.flatnonzero(~finite).tolist()


def test_a_folder_without_manifest_and_journal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no such folder"):
        verify_cache(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CacheError, match="not a cache"):
        verify_cache(tmp_path / "empty")
