"""The calibration sample is chosen by a seed, and its fit is stored and reused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import CacheError, open_cache
from cache.codec_fits import read_codecs
from cache.manifest import read_manifest
from pipeline.codec_fit.requirements import CodecRequirement
from pipeline.codec_fit.sample import choose_sample, own_lengths, segments_of
from pipeline.errors import InputError
from pipeline.extract.calibration import calibrate_on_cache, same_requirements
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings

MakeSettings = Callable[..., ExtractSettings]


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(0, 600), st.integers(0, 3))
def test_a_sample_reaches_its_tokens_with_no_example_too_many(
    lengths: list[int], tokens: int, seed: int
) -> None:
    chosen = choose_sample(lengths, tokens, seed)
    total = sum(lengths[index] for index in chosen)
    assert chosen == sorted(set(chosen)) == choose_sample(lengths, tokens, seed)
    assert total >= min(tokens, sum(lengths))
    if total > tokens:
        assert any(total - lengths[index] < tokens for index in chosen)


def test_seeds_choose_different_samples() -> None:
    assert choose_sample([10] * 100, 200, 0) != choose_sample([10] * 100, 200, 1)


def test_shared_prefixes_are_one_segment_each(small_cache: Path) -> None:
    with open_cache(small_cache) as cache:
        indices = list(range(len(cache)))
        shared, own = segments_of(cache, indices, -1)
        assert list(map(len, own)) == own_lengths(cache)
        assert sum(map(len, [*shared, *own])) == sum(
            int(record.stored.sum()) for record in cache.records
        )
        for index in indices:
            whole = cache.example(index).hidden_states[-1]
            end = whole[len(whole) - len(own[index]) :]
            assert np.array_equal(end.view(np.uint16), own[index].view(np.uint16))


def test_calibration_before_the_pass_equals_calibration_on_the_cache(
    embedded_settings: MakeSettings, small_cache: Path
) -> None:
    """The states of the sample differ from the stored ones only in the order of sums."""
    settings = embedded_settings(codec=("klt",), fidelity=("rel=0.1",), calibration_tokens=2000)
    extract(prepare(settings))
    requirements = {
        -1: CodecRequirement("klt", "rel", 0.1, calibration_tokens=2000),
        0: CodecRequirement("klt", "rel", 0.1, calibration_tokens=2000),
    }
    before = read_codecs(settings.cache, read_manifest(settings.cache))
    with open_cache(small_cache) as cache:
        after = calibrate_on_cache(cache, requirements, None)
    for layer in requirements:
        assert before[layer].settings["found"] == pytest.approx(
            after[layer].settings["found"], rel=0.02
        )


def test_requirements_are_compared_without_the_fit(embedded_settings: MakeSettings) -> None:
    settings = embedded_settings(codec=("klt",), bits=("2",), layers=(0,), calibration_tokens=1500)
    extract(prepare(settings))
    manifest = read_manifest(settings.cache)
    same = CodecRequirement("klt", "bits", 2.0, calibration_tokens=1500)
    assert same_requirements(manifest, {0: same})
    changes: list[dict[str, Any]] = [
        {"target": 2.5},
        {"measure": "rel"},
        {"seed": 1},
        {"calibration_tokens": 1501},
        {"name": "int8"},
    ]
    for change in changes:
        other = CodecRequirement(**(vars(same) | change))
        assert not same_requirements(manifest, {0: other}), change


def test_another_calibration_seed_is_another_identity(embedded_settings: MakeSettings) -> None:
    options = {"codec": ("int8",), "calibration_tokens": 1500}
    settings = embedded_settings(**options)
    extract(prepare(settings))
    with pytest.raises(CacheError, match="codec -1 calibration_seed was 0, now it is 1"):
        extract(prepare(embedded_settings(**options, calibration_seed=1, cache=settings.cache)))


def test_a_shared_prefix_counts_once_in_a_sample() -> None:
    assert len(choose_sample([1] * 100, 300, 0, lambda index: {index // 10: 100})) < 20
    assert len(choose_sample([1] * 100, 150, 0, lambda index: {0: 100})) == 50


def test_a_rate_that_no_step_meets_is_refused_before_the_pass(
    embedded_settings: MakeSettings,
) -> None:
    settings = embedded_settings(codec=("klt",), bits=("0.0001",), calibration_tokens=1500)
    with pytest.raises(InputError, match=r"every step gives more than bits=0\.0001"):
        extract(prepare(settings))
    assert not settings.cache.exists() or not list(settings.cache.rglob("journal.jsonl"))
