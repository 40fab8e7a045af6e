"""What examples share is read once, and gives the states that reading each of them whole gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import open_cache
from cache.upkeep.verify import verify_cache
from pipeline.extract.prefix_pass import PrefixPass
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from tests.conftest import write_rows
from tests.pipeline.recorded_progress import InterruptAfterShard

Make = Callable[..., ExtractSettings]


def rows_that_share() -> list[object]:
    """A long system prompt for all, a second part for some, other prompts, and duplicates."""
    system = "Answer in whole sentences and show every step of the way. " * 6
    more = "Here the numbers are small and the units are metres. " * 6
    rows: list[Any] = []
    for number in range(12):
        asked = f"{more if number % 2 else ''}What is {number} plus {number * 7}?"
        texts = {"system": system, "user": asked, "assistant": f"It is {number * 8}."}
        rows.append({"messages": [{"role": role, "content": text} for role, text in texts.items()]})
    return [*rows, {"messages": rows[0]["messages"][1:]}, rows[3], rows[3], rows[7]]


@pytest.fixture
def settings(embedded_settings: Make, tmp_path: Path) -> ExtractSettings:
    rows = write_rows(tmp_path / "rows.jsonl", rows_that_share())
    return embedded_settings(dataset=str(rows), limit=None, shard_tokens=900, batch_tokens=700)


def test_shared_states_are_those_of_whole_examples(settings: ExtractSettings) -> None:
    whole = replace(settings, sharing=False, cache=settings.cache.with_name("whole"))
    shared, plain = extract(prepare(settings)), extract(prepare(whole))
    assert shared.tokens == plain.tokens == plain.stored_tokens
    assert shared.stored_tokens < 0.6 * plain.stored_tokens
    assert len(open_cache(settings.cache).prefixes) >= 3
    assert len(open_cache(settings.cache).records) > 2
    for one, other in zip(open_cache(settings.cache), open_cache(whole.cache), strict=True):
        assert (one.row_id, one.input_ids.tolist()) == (other.row_id, other.input_ids.tolist())
        for layer in one.hidden_states:
            a, b = (each.hidden_states[layer].astype(np.float32) for each in (one, other))
            assert (
                np.abs(a - b).max() <= 0.01 * np.abs(b).max()
            )  # a bfloat16 rounded the other way, and no more
    assert verify_cache(settings.cache).whole


def test_stopped_and_gone_on_with_it_has_the_digest_of_one_that_was_not(
    settings: ExtractSettings,
) -> None:
    digest = extract(
        prepare(replace(settings, cache=settings.cache.with_name("whole")))
    ).content_digest

    with pytest.raises(KeyboardInterrupt):
        extract(prepare(settings), InterruptAfterShard())
    result = extract(prepare(settings))
    assert 0 < result.resumed_shards < result.shards
    assert result.content_digest == digest


def test_what_many_prompts_are_gone_on_from_is_not_held_all_at_once(
    embedded_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Any] = [
        {
            "messages": [
                {"role": "user", "content": f"{prompt} " * 60},
                {"role": "assistant", "content": f"It is {answer}."},
            ]
        }
        for prompt in range(100, 112)
        for answer in range(4)
    ]
    dataset = str(write_rows(tmp_path / "rows.jsonl", rows))
    settings = embedded_settings(
        dataset=dataset, limit=None, shard_tokens=100_000, batch_tokens=1600
    )
    prepared, held = prepare(settings), []
    plain = PrefixPass.read

    def read(self: PrefixPass, number: int) -> Any:
        segment = plain(self, number)
        held.append(self.kept_tokens)
        return segment

    monkeypatch.setattr(PrefixPass, "read", read)
    shared = extract(prepared)
    longest = max(prefix.stop for prefix in prepared.sharing.prefixes)
    assert len(prepared.sharing.prefixes) >= 12 and longest > 100
    assert (
        max(held)
        <= 1600 // 4 + 2 * longest
        < sum(prefix.stop for prefix in prepared.sharing.prefixes) / 2
    )
    whole = replace(settings, sharing=False, cache=settings.cache.with_name("whole"))
    assert extract(prepare(whole)).tokens == shared.tokens
    for one, other in zip(open_cache(settings.cache), open_cache(whole.cache), strict=True):
        for layer in one.hidden_states:
            a, b = (each.hidden_states[layer].astype(np.float32) for each in (one, other))
            assert np.abs(a - b).max() <= 0.01 * np.abs(b).max()


@pytest.mark.parametrize("codec", ["int8", "klt"])
def test_a_fitted_codec_is_taken_up_again(
    codec: str, settings: ExtractSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(settings, codec=(codec,))
    digest = extract(
        prepare(replace(settings, cache=settings.cache.with_name("whole")))
    ).content_digest

    with pytest.raises(KeyboardInterrupt):
        extract(prepare(settings), InterruptAfterShard())
    monkeypatch.setattr("pipeline.extract.worker.calibrate", None)
    assert extract(prepare(settings)).content_digest == digest
