"""States with shared prefixes equal those of whole examples, also after a resume."""

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
    """Return rows with a long system prompt, nested prefixes, other prompts and duplicates."""
    system = "Answer in whole sentences and show every step of the way. " * 6
    more = "Here the numbers are small and the units are metres. " * 6
    rows: list[Any] = []
    for number in range(12):
        question = f"{more if number % 2 else ''}What is {number} plus {number * 7}?"
        texts = {"system": system, "user": question, "assistant": f"It is {number * 8}."}
        rows.append({"messages": [{"role": role, "content": text} for role, text in texts.items()]})
    return [*rows, {"messages": rows[0]["messages"][1:]}, rows[3], rows[3], rows[7]]


@pytest.fixture
def settings(embedded_settings: Make, tmp_path: Path) -> ExtractSettings:
    rows = write_rows(tmp_path / "rows.jsonl", rows_that_share())
    return embedded_settings(dataset=str(rows), limit=None, shard_tokens=900, batch_tokens=700)


def require_close_states(one: Path, other: Path) -> None:
    """Require equal tokens, and states that differ by bfloat16 rounding at most."""
    for example, expected in zip(open_cache(one), open_cache(other), strict=True):
        assert example.row_id == expected.row_id
        assert example.input_ids.tolist() == expected.input_ids.tolist()
        for layer, hidden_TD in example.hidden_states.items():
            exact_TD = expected.hidden_states[layer].astype(np.float32)
            error = np.abs(hidden_TD.astype(np.float32) - exact_TD).max()
            assert error <= 0.01 * np.abs(exact_TD).max()


def test_states_with_sharing_are_those_of_whole_examples(settings: ExtractSettings) -> None:
    whole = replace(settings, sharing=False, cache=settings.cache.with_name("whole"))
    shared, plain = extract(prepare(settings)), extract(prepare(whole))
    assert shared.tokens == plain.tokens == plain.stored_tokens
    assert shared.stored_tokens < 0.6 * plain.stored_tokens
    assert len(open_cache(settings.cache).prefixes) >= 3
    assert len(open_cache(settings.cache).records) > 2
    require_close_states(settings.cache, whole.cache)
    assert verify_cache(settings.cache).whole


def test_a_resumed_extract_has_the_digest_of_an_uninterrupted_one(
    settings: ExtractSettings,
) -> None:
    uninterrupted = replace(settings, cache=settings.cache.with_name("whole"))
    digest = extract(prepare(uninterrupted)).content_digest
    with pytest.raises(KeyboardInterrupt):
        extract(prepare(settings), InterruptAfterShard())
    result = extract(prepare(settings))
    assert 0 < result.resumed_shards < result.shards
    assert result.content_digest == digest


def test_few_of_many_prefixes_are_kept_at_a_time(
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
    plan, kept_tokens = prepare(settings), list[int]()
    plain = PrefixPass.read

    def read(self: PrefixPass, number: int) -> Any:
        segment = plain(self, number)
        kept_tokens.append(self.kept_tokens)
        return segment

    monkeypatch.setattr(PrefixPass, "read", read)
    extract(plan)
    stops = [prefix.stop for prefix in plan.sharing.prefixes]
    assert len(stops) >= 12
    assert max(stops) > 100
    assert max(kept_tokens) <= 1600 // 4 + 2 * max(stops) < sum(stops) / 2
    whole = replace(settings, sharing=False, cache=settings.cache.with_name("whole"))
    extract(prepare(whole))
    require_close_states(settings.cache, whole.cache)


@pytest.mark.parametrize("codec", ["int8", "klt"])
def test_a_resumed_extract_uses_the_stored_fit(
    codec: str, settings: ExtractSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(settings, codec=(codec,))
    uninterrupted = replace(settings, cache=settings.cache.with_name("whole"))
    digest = extract(prepare(uninterrupted)).content_digest
    with pytest.raises(KeyboardInterrupt):
        extract(prepare(settings), InterruptAfterShard())
    monkeypatch.setattr("pipeline.extract.worker.calibrate", None)
    assert extract(prepare(settings)).content_digest == digest
