"""The states in a cache are those of a plain forward pass, and the result describes the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

from cache import open_cache
from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.errors import InputError
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.teacher.load import load_teacher
from pipeline.teacher.source import find_teacher
from tests.conftest import write_rows

Make = Callable[..., ExtractSettings]


def test_cached_states_are_those_of_a_plain_forward_pass(small_cache: Path) -> None:
    model = load_teacher(find_teacher(EMBEDDED_TEACHER), (-1,), torch.device("cpu"), "fp32").body
    for example in open_cache(small_cache)[::7]:
        with torch.no_grad():
            ids = torch.from_numpy(example.input_ids.astype(np.int64))[None]
            plain = model(input_ids=ids, output_hidden_states=True).hidden_states
        for layer, states in example.hidden_states.items():
            # bfloat16 has 8 bits: nearly equal numbers are rounded at most one step apart.
            np.testing.assert_allclose(
                states.astype(np.float32), plain[layer][0].numpy(), rtol=2**-7, atol=1e-4
            )


def test_bf16_states_of_the_teacher_are_stored_as_bf16(embedded_settings: Make) -> None:
    settings = embedded_settings(limit=2, dtype="bf16")
    extract(prepare(settings))
    assert open_cache(settings.cache)[0].hidden_states[-1].dtype == ml_dtypes.bfloat16


def test_the_result_counts_the_cache(embedded_settings: Make) -> None:
    settings = embedded_settings(limit=6)
    result = extract(prepare(settings))
    cache = open_cache(settings.cache)
    assert (result.examples, result.tokens) == (6, int(cache.lengths.sum()))
    assert (result.bytes, result.left_out) == (cache.bytes, {})


def test_a_finished_extract_run_again_computes_nothing(
    embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = embedded_settings(limit=6)
    result = extract(prepare(settings))
    monkeypatch.setattr("pipeline.extract.worker.load_teacher", None)
    again = extract(prepare(settings))
    assert (again.resumed_shards, again.tokens_per_second) == (again.shards, None)
    assert again.content_digest == result.content_digest


def test_long_and_malformed_rows_are_left_out_and_counted(
    embedded_settings: Make, tmp_path: Path
) -> None:
    rows = [{"question": "Q " * n, "answer": "A"} for n in (1, 2, 200)]
    path = write_rows(tmp_path / "rows.jsonl", [*rows, {"question": "Q"}])
    settings = embedded_settings(dataset=str(path), max_tokens=100, skip_bad_rows=True, limit=None)
    assert extract(prepare(settings)).left_out == {"over 100 tokens": 1, "malformed": 1}
    assert open_cache(settings.cache).row_ids == ["0", "1"]


def test_a_data_set_without_examples_is_refused_before_anything_is_written(
    embedded_settings: Make,
) -> None:
    settings = embedded_settings(max_tokens=3)
    with pytest.raises(InputError, match=r"no example is left .*raise --max-tokens"):
        prepare(settings)
    assert not settings.cache.exists()
