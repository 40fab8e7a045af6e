"""The sample that codecs are fitted to: chosen by a seed, read once, found again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import open_cache
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
def test_a_sample_has_the_tokens_asked_for_and_not_an_example_more(
    lengths: list[int], tokens: int, seed: int
) -> None:
    chosen = choose_sample(lengths, tokens, seed)
    held = sum(lengths[index] for index in chosen)
    assert chosen == sorted(set(chosen)) == choose_sample(lengths, tokens, seed)
    assert held >= min(tokens, sum(lengths))
    if held > tokens:
        assert any(held - lengths[index] < tokens for index in chosen)


def test_seeds_choose_different_samples() -> None:
    assert choose_sample([10] * 100, 200, 0) != choose_sample([10] * 100, 200, 1)


def test_segments_hold_what_examples_share_once(small_cache: Path) -> None:
    with open_cache(small_cache) as cache:
        indices = list(range(len(cache)))
        shared, own = segments_of(cache, indices, -1)
        assert list(map(len, own)) == own_lengths(cache)
        assert sum(map(len, [*shared, *own])) == sum(
            int(record.stored.sum()) for record in cache.records
        )
        for index in indices:
            whole = cache.example(index).hidden_states[-1]
            assert np.array_equal(
                whole[len(whole) - len(own[index]) :].view(np.uint16), own[index].view(np.uint16)
            )


def test_a_codec_fitted_before_the_pass_is_the_one_fitted_to_its_cache(
    embedded_settings: MakeSettings, small_cache: Path
) -> None:
    """The sample read before the one pass has the states that the pass then stores, but for how
    sums were ordered."""
    settings = embedded_settings(codec=("klt",), fidelity=("rel=0.1",), calibration_tokens=2000)
    extract(prepare(settings))
    asked = {
        -1: CodecRequirement("klt", "rel", 0.1, calibration_tokens=2000),
        0: CodecRequirement("klt", "rel", 0.1, calibration_tokens=2000),
    }
    before = read_codecs(settings.cache, read_manifest(settings.cache))
    with open_cache(small_cache) as cache:
        after = calibrate_on_cache(cache, asked, None)
    for layer in asked:
        for name, value in after[layer].settings["found"].items():
            assert before[layer].settings["found"][name] == pytest.approx(value, rel=0.02), (
                layer,
                name,
            )


def test_what_was_asked_is_known_again_whatever_the_fit(embedded_settings: MakeSettings) -> None:
    settings = embedded_settings(codec=("klt",), bits=("2",), layers=(0,), calibration_tokens=1500)
    extract(prepare(settings))
    manifest = read_manifest(settings.cache)
    same = CodecRequirement("klt", "bits", 2.0, calibration_tokens=1500)
    assert same_requirements(manifest, {0: same})
    others: list[dict[str, Any]] = [
        {"target": 2.5},
        {"measure": "rel"},
        {"seed": 1},
        {"calibration_tokens": 1501},
        {"name": "int8"},
    ]
    for change in others:
        assert not same_requirements(manifest, {0: CodecRequirement(**(vars(same) | change))}), (
            change
        )


def test_another_seed_is_another_cache(embedded_settings: MakeSettings) -> None:
    options = {"codec": ("int8",), "calibration_tokens": 1500}
    settings = embedded_settings(**options)
    extract(prepare(settings))
    with pytest.raises(Exception, match="codec -1 calibration_seed was 0, now it is 1"):
        extract(prepare(embedded_settings(**options, calibration_seed=1, cache=settings.cache)))


def test_what_is_shared_counts_once_in_a_sample() -> None:
    assert len(choose_sample([1] * 100, 300, 0, lambda index: {index // 10: 100})) < 20
    assert len(choose_sample([1] * 100, 150, 0, lambda index: {0: 100})) == 50


def test_a_rate_that_nothing_gives_is_refused_before_the_pass(
    embedded_settings: MakeSettings,
) -> None:
    settings = embedded_settings(codec=("klt",), bits=("0.0001",), calibration_tokens=1500)
    with pytest.raises(InputError, match=r"every step gives more than bits=0\.0001"):
        extract(prepare(settings))
    assert not settings.cache.exists() or not list(settings.cache.rglob("journal.jsonl"))
