"""States that are not finite end the run, or their examples are left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from cache import open_cache
from cache.upkeep.convert import convert_cache
from cache.upkeep.summary import summarise_cache
from cache.upkeep.verify import verify_cache
from pipeline.errors import RunError
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.teacher.model import Teacher
from tests.cache.examples import same_example

Make = Callable[..., ExtractSettings]


def break_rows(
    monkeypatch: pytest.MonkeyPatch, settings: ExtractSettings, broken: set[str], layer: int = -1
) -> None:
    """Make three values of the third token of some rows not finite."""
    plain = Teacher.hidden_states
    starts = {
        tuple(example.input_ids[:200])
        for example in prepare(settings).dataset.examples
        if example.row_id in broken
    }
    values = torch.tensor([float("nan"), float("inf"), -float("inf")])

    def hidden_states(
        self: Teacher, ids: torch.Tensor, mask: torch.Tensor | None = None, past: Any = None
    ) -> dict[int, torch.Tensor]:
        states = {layer: hidden.clone() for layer, hidden in plain(self, ids, mask, past).items()}
        for row, tokens in enumerate(ids.tolist()):
            length = len(tokens) if mask is None else int(mask[row].sum())
            if tuple(tokens[: min(200, length)]) in starts:
                states[layer][row, 2, :3] = values
        return states

    monkeypatch.setattr(Teacher, "hidden_states", hidden_states)


def test_they_end_the_run_with_row_layer_and_count(
    embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = embedded_settings(limit=6, sharing=False)
    break_rows(monkeypatch, settings, {"4"}, layer=0)
    message = r"row 4, layer 0: the teacher gives 3 values that are not finite.*--skip-non-finite"
    with pytest.raises(RunError, match=message):
        extract(prepare(settings))


def test_their_rows_are_left_out_and_counted_when_the_run_resumes(
    embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = embedded_settings(limit=20, shard_tokens=600, sharing=False)
    with monkeypatch.context() as patch:
        break_rows(patch, settings, {"1", "2", "17"})
        with pytest.raises(RunError):
            extract(prepare(settings))
        result = extract(prepare(replace(settings, skip_non_finite=True)))
    cache = open_cache(settings.cache)
    assert cache.row_ids == [str(row) for row in range(20) if row not in (1, 2, 17)]
    assert (result.examples, result.left_out) == (17, {"states not finite": 3})
    assert (result.tokens, result.bytes) == (int(cache.lengths.sum()), cache.bytes)
    assert verify_cache(settings.cache).whole
    summary = summarise_cache(settings.cache)
    assert (summary["examples"], summary["planned_examples"]) == (17, 20)
    assert summary["left_out"] == {"states not finite": 3}
    intact = embedded_settings(limit=20, shard_tokens=600, sharing=False)
    extract(prepare(intact))
    others = {example.row_id: example for example in open_cache(intact.cache)}
    assert all(same_example(example, others[example.row_id]) for example in cache)


def test_a_shard_without_finite_examples_is_published_empty(
    embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_example_per_shard = {"shard_tokens": 1}
    settings = embedded_settings(
        limit=6, skip_non_finite=True, sharing=False, **one_example_per_shard
    )
    break_rows(monkeypatch, settings, {"2", "3"})
    assert extract(prepare(settings)).examples == 4
    cache = open_cache(settings.cache)
    assert cache.row_ids == ["0", "1", "4", "5"]
    assert [len(example) for example in cache] == cache.lengths.tolist()
    assert verify_cache(settings.cache).whole
    converted = settings.cache.with_name("converted")
    assert convert_cache(settings.cache, converted, container="hdf5").same_content
    assert verify_cache(converted).whole


def test_a_cache_without_finite_examples_is_refused(
    embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = embedded_settings(limit=2, skip_non_finite=True, sharing=False)
    break_rows(monkeypatch, settings, {"0", "1"})
    with pytest.raises(RunError, match="no example is left: no states were finite"):
        extract(prepare(settings))
