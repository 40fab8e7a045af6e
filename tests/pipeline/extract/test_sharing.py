"""Properties of sharing plans, for any tokens."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.shard.content import NO_PREFIX
from pipeline.data.tokenized_dataset import TokenizedExample
from pipeline.extract import sharing
from pipeline.extract.batching import plan_shards
from pipeline.extract.sharing import SharingPlan, plan_sharing
from tests.pipeline.extract.shared_tokens import ANY_EXAMPLES, Tokens, tokens_of


@pytest.fixture(params=["usual thresholds", "no thresholds"], autouse=True, scope="module")
def thresholds(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run each test again with every common prefix shared, however short."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "no thresholds":
            patch.setattr(sharing, "_SHORTEST", 1)
            patch.setattr(sharing, "_LEAST_SAVED", 1)
        yield


def whole_prefix(plan: SharingPlan, examples: Sequence[TokenizedExample], number: int) -> Tokens:
    prefixes = [plan.prefixes[index] for index in plan.path(number)]
    return [
        token
        for prefix in prefixes
        for token in tokens_of(examples[prefix.example], prefix.start, prefix.stop)
    ]


def users_of(plan: SharingPlan, number: int) -> list[int]:
    """Return the examples that have a prefix."""
    return [
        example for example, longest in enumerate(plan.of_example) if number in plan.path(longest)
    ]


@given(examples=ANY_EXAMPLES)
@settings(deadline=None)
def test_prefixes_and_rest_of_an_example_are_its_tokens(examples: list[TokenizedExample]) -> None:
    plan = plan_sharing(examples)
    assert len(plan.of_example) == len(examples)
    for index, example in enumerate(examples):
        shared = whole_prefix(plan, examples, plan.of_example[index])
        assert len(shared) == plan.shared_tokens(index)
        assert shared + tokens_of(example, plan.shared_tokens(index)) == tokens_of(example)


@given(examples=ANY_EXAMPLES)
@settings(deadline=None)
def test_a_prefix_follows_one_with_a_smaller_number(examples: list[TokenizedExample]) -> None:
    plan = plan_sharing(examples)
    for number, prefix in enumerate(plan.prefixes):
        assert NO_PREFIX <= prefix.after < number
        start = 0 if prefix.after == NO_PREFIX else plan.prefixes[prefix.after].stop
        assert prefix.start == start
        assert prefix.start < prefix.stop <= len(examples[prefix.example])
    first_examples = [prefix.example for prefix in plan.prefixes]
    assert first_examples == sorted(first_examples)


@given(examples=ANY_EXAMPLES)
@settings(deadline=None)
def test_all_examples_with_a_prefix_have_its_tokens_and_loss_mask(
    examples: list[TokenizedExample],
) -> None:
    plan = plan_sharing(examples)
    for number, prefix in enumerate(plan.prefixes):
        users = users_of(plan, number)
        assert len(users) >= 2
        assert users[0] == prefix.example
        tokens = tokens_of(examples[users[0]], 0, prefix.stop)
        assert all(tokens_of(examples[user], 0, prefix.stop) == tokens for user in users)
        assert prefix.is_stem == any(len(examples[user]) > prefix.stop for user in users)


@given(examples=ANY_EXAMPLES, copies=st.lists(st.integers(0, 13), min_size=1, max_size=5))
@settings(deadline=None)
def test_complete_duplicates_are_always_stored_once(
    examples: list[TokenizedExample], copies: list[int]
) -> None:
    examples = examples + [
        replace(examples[copy % len(examples)], row_id=f"copy-{number}")
        for number, copy in enumerate(copies)
    ]
    plan = plan_sharing(examples)
    same_text: dict[tuple[tuple[int, bool], ...], list[int]] = {}
    for index, example in enumerate(examples):
        same_text.setdefault(tuple(tokens_of(example)), []).append(index)
    for indices in same_text.values():
        if len(indices) > 1:
            assert len({plan.of_example[index] for index in indices}) == 1
            assert all(plan.shared_tokens(index) == len(examples[index]) for index in indices)


@given(examples=ANY_EXAMPLES, data=st.data())
@settings(deadline=None)
def test_nothing_is_shared_from_the_first_different_loss_mask(
    examples: list[TokenizedExample], data: st.DataObject
) -> None:
    one = examples[0]
    place = data.draw(st.integers(0, len(one) - 1))
    mask = one.loss_mask.copy()
    mask[place] ^= True
    copies = data.draw(st.integers(1, 5))
    others = [replace(one, row_id=str(copy), loss_mask=mask) for copy in range(copies)]
    plan = plan_sharing([one, *others])
    assert plan.shared_tokens(0) <= place
    assert not set(plan.path(plan.of_example[0])) - set(plan.path(plan.of_example[1]))


@given(examples=ANY_EXAMPLES, shard_tokens=st.integers(1, 300))
@settings(deadline=None)
def test_a_prefix_is_stored_once_no_later_than_an_example_needs_it(
    examples: list[TokenizedExample], shard_tokens: int
) -> None:
    plan = plan_sharing(examples)
    shards = plan_shards([len(example) for example in examples], shard_tokens)
    stored = [plan.stored_with(shard) for shard in shards]
    assert [number for numbers in stored for number in numbers] == list(range(len(plan.prefixes)))
    available: set[int] = set()
    for shard, numbers in zip(shards, stored, strict=True):
        available |= set(numbers)
        assert all(set(plan.path(plan.of_example[index])) <= available for index in shard)


@given(examples=ANY_EXAMPLES, shard_tokens=st.integers(1, 300))
@settings(deadline=None)
def test_sharing_stores_fewer_tokens_than_whole_examples(
    examples: list[TokenizedExample], shard_tokens: int
) -> None:
    plan, lengths = plan_sharing(examples), [len(example) for example in examples]
    shards = plan_shards(lengths, shard_tokens)
    sizes = [plan.stored_lengths(shard, [lengths[index] for index in shard]) for shard in shards]
    for shard, segments in zip(shards, sizes, strict=True):
        assert len(segments) == len(plan.stored_with(shard)) + len(shard)
        assert min(segments) >= 0
    assert sum(map(sum, sizes)) <= sum(lengths)
    assert (sum(map(sum, sizes)) < sum(lengths)) == bool(plan.prefixes)


@given(examples=ANY_EXAMPLES)
@settings(deadline=None)
def test_a_plan_does_not_depend_on_row_ids(examples: list[TokenizedExample]) -> None:
    plan = plan_sharing(examples)
    others = [
        TokenizedExample(
            f"other {len(examples) - number}",
            example.input_ids.astype(np.int64).astype(np.int32),
            example.loss_mask.copy(),
        )
        for number, example in enumerate(examples)
    ]
    assert plan_sharing(others) == plan


@given(examples=ANY_EXAMPLES, seed=st.integers(0, 1000))
@settings(deadline=None)
def test_shared_lengths_do_not_depend_on_the_order_of_rows(
    examples: list[TokenizedExample], seed: int
) -> None:
    order = random.Random(seed).sample(range(len(examples)), len(examples))
    plan, other = plan_sharing(examples), plan_sharing([examples[index] for index in order])
    for place, index in enumerate(order):
        stops = [plan.prefixes[number].stop for number in plan.path(plan.of_example[index])]
        path = other.path(other.of_example[place])
        assert [other.prefixes[number].stop for number in path] == stops


@given(examples=ANY_EXAMPLES)
@settings(deadline=None)
def test_neighbours_have_few_common_tokens_after_their_common_prefix(
    examples: list[TokenizedExample],
) -> None:
    plan = plan_sharing(examples)
    order = sorted(range(len(examples)), key=lambda index: tokens_of(examples[index]))
    for one, other in pairwise(order):
        paths = [plan.path(plan.of_example[index]) for index in (one, other)]
        common = [a for a, b in zip(*paths, strict=False) if a == b]
        depth = plan.prefixes[common[-1]].stop if common else 0
        pairs = zip(tokens_of(examples[one]), tokens_of(examples[other]), strict=False)
        equal = [a == b for a, b in pairs]
        unshared = (equal.index(False) if False in equal else len(equal)) - depth
        assert 0 <= unshared < max(sharing._SHORTEST, sharing._LEAST_SAVED)
