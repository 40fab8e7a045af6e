"""Losses per row add up to the validation loss; intervals have the coverage that they state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import open_cache
from pipeline.batches.decoder import StatesDecoder
from pipeline.batches.loader import CachedBatches
from pipeline.batches.order import BatchSize, order_of
from pipeline.batches.sampler import ValidationBatches
from pipeline.batches.whole_examples import WholeExamples
from pipeline.evaluation.losses import RowLosses, row_losses, share_interval, transfer_score
from pipeline.model import build_student
from pipeline.processes import Share
from pipeline.training.validation import validation_loss


def row_losses_of(nats: list[float], tokens: int = 10) -> RowLosses:
    counts = np.full(len(nats), tokens)
    return RowLosses(tuple(map(str, range(len(nats)))), np.array(nats), counts, counts)


@pytest.mark.parametrize("size", [BatchSize(1), BatchSize(7), BatchSize(tokens=700)])
def test_the_losses_of_the_rows_add_up_to_the_validation_loss(
    size: BatchSize, small_cache: Path
) -> None:
    with open_cache(small_cache) as cache:
        torch.manual_seed(0)
        model = build_student(
            "tiny",
            vocab_size=576,
            longest=512,
            teacher_hidden_size=128,
            condition="sequence",
            eos_token_id=2,
            pad_token_id=0,
        ).eval()
        examples, decoder, cpu = (
            WholeExamples(cache, range(12), [-1]),
            StatesDecoder([cache.codecs[-1]]),
            torch.device("cpu"),
        )
        order = order_of(cache, examples.indices, examples.sizes, size, 0)
        losses = row_losses(model, examples, order, decoder, cpu)
        whole = validation_loss(
            model, CachedBatches(examples, ValidationBatches(order, Share())), decoder, cpu
        )
        assert losses.loss == pytest.approx(whole.loss, rel=1e-5)
        assert losses.tokens.sum() == whole.tokens
        assert sorted(losses.row_ids) == sorted(cache.row_ids[:12])
        alone = row_losses(
            model,
            WholeExamples(cache, [5], [-1]),
            order_of(cache, [5], [1], BatchSize(1), 0),
            decoder,
            cpu,
        )
        assert losses.nats[losses.row_ids.index(cache.row_ids[5])] == pytest.approx(
            alone.nats[0], rel=1e-4
        )


def test_intervals_contain_the_true_mean_as_often_as_stated() -> None:
    generator, covered = np.random.default_rng(7), 0
    for _ in range(200):
        low, high = row_losses_of(
            list(generator.gamma(2.0, 1.0, size=60)), tokens=1
        ).interval() or (0, 0)
        covered += low <= 2.0 <= high
    assert 0.88 <= covered / 200 <= 0.99


@settings(max_examples=50, deadline=None)
@given(pairs=st.lists(st.tuples(st.floats(0.1, 50), st.floats(0.1, 50)), min_size=10, max_size=30))
def test_a_transfer_score_is_the_relative_reduction_of_the_summed_loss(
    pairs: list[tuple[float, float]],
) -> None:
    student, other = (row_losses_of([pair[side] for pair in pairs]) for side in (0, 1))
    transfer, same = transfer_score(student, other), transfer_score(student, student)
    assert transfer is not None and same is not None and transfer.interval is not None
    assert transfer.score == pytest.approx(
        1 - sum(pair[0] for pair in pairs) / sum(pair[1] for pair in pairs)
    )
    assert transfer.interval[0] <= transfer.interval[1]
    assert (same.score, same.interval) == (0, (0, 0))


def test_fewer_than_ten_rows_have_no_interval() -> None:
    few = row_losses_of([1.0] * 9)
    assert few.interval() is None
    score = transfer_score(few, row_losses_of([2.0] * 9))
    assert score is not None and (score.score, score.interval) == (0.5, None)
    assert (
        transfer_score(few, RowLosses(("other",), np.ones(1), np.ones(1, int), np.ones(1, int)))
        is None
    )


def test_only_rows_of_both_runs_count() -> None:
    student = RowLosses(
        ("a", "b", "c"), np.array([1.0, 2.0, 3.0]), np.ones(3, int), np.ones(3, int)
    )
    other = RowLosses(("c", "a"), np.array([6.0, 4.0]), np.ones(2, int), np.ones(2, int))
    transfer = transfer_score(student, other)
    assert transfer is not None and (transfer.rows, transfer.score) == (
        2,
        pytest.approx(1 - 4 / 10),
    )


def test_wilson_intervals_equal_published_values() -> None:
    assert share_interval(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert share_interval(5, 10) == (
        pytest.approx(0.2366, abs=1e-4),
        pytest.approx(0.7634, abs=1e-4),
    )
    assert share_interval(10, 10)[1] == pytest.approx(1.0)
