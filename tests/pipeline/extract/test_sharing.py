"""What is shared by whom: everything that a plan promises, for any tokens."""

from __future__ import annotations

from collections.abc import Sequence
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
from pipeline.extract.sharing import SharingPlan, plan_sharing, share_nothing

Tokens = list[tuple[int, bool]]
BLOCKS: list[Tokens] = [
    [(1, False)] * 8,
    [(1, False)] * 40,
    [(2, True)] * 30,
    [(1, False)] * 39 + [(3, False)],
    [(1, False)] * 39 + [(1, True)],  # the same text, of which the last token is to be learned
    [(token % 3, False) for token in range(64)],
    [(2, False)],
]


def make(tokens: Sequence[Tokens]) -> list[TokenizedExample]:
    return [
        TokenizedExample(
            f"row-{i}",
            np.array([t for t, _ in each], np.int32),
            np.array([m for _, m in each], np.bool_),
        )
        for i, each in enumerate(tokens)
    ]


def tokens_of(example: TokenizedExample, start: int = 0, stop: int | None = None) -> Tokens:
    return list(
        zip(
            example.input_ids[start:stop].tolist(),
            example.loss_mask[start:stop].tolist(),
            strict=True,
        )
    )


token = st.tuples(st.sampled_from([0, 1, 575]), st.booleans())
of_blocks = st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=4).map(
    lambda blocks: [t for block in blocks for t in block]
)
of_few_tokens = st.lists(token, min_size=1, max_size=6)
any_examples = st.lists(of_blocks | of_few_tokens, min_size=1, max_size=14).map(make)


@pytest.fixture(params=["as it is", "whatever is shared"], autouse=True, scope="module")
def thresholds(request: pytest.FixtureRequest) -> None:
    """Once as it is, and once with all that is worth nothing: any two examples with a common first
    token then share it."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param != "as it is":
            patch.setattr(sharing, "_SHORTEST", 1)
            patch.setattr(sharing, "_LEAST_SAVED", 1)
        yield


def whole_prefix(plan: SharingPlan, examples: Sequence[TokenizedExample], number: int) -> Tokens:
    segments = [plan.prefixes[each] for each in plan.path(number)]
    return [
        each
        for prefix in segments
        for each in tokens_of(examples[prefix.example], prefix.start, prefix.stop)
    ]


@given(examples=any_examples)
@settings(deadline=None)
def test_the_segments_of_an_example_are_its_tokens(examples: list[TokenizedExample]) -> None:
    plan = plan_sharing(examples)
    assert len(plan.of_example) == len(examples)
    for index, example in enumerate(examples):
        shared = whole_prefix(plan, examples, plan.of_example[index])
        assert len(shared) == plan.shared_tokens(index)
        assert shared + tokens_of(example, plan.shared_tokens(index)) == tokens_of(
            example
        )  # ids and loss mask


@given(examples=any_examples)
@settings(deadline=None)
def test_numbers_ascend_and_what_comes_before_a_prefix_has_a_smaller_one(
    examples: list[TokenizedExample],
) -> None:
    plan = plan_sharing(examples)
    for number, prefix in enumerate(plan.prefixes):
        assert NO_PREFIX <= prefix.after < number
        assert prefix.start == (
            0 if prefix.after == NO_PREFIX else plan.prefixes[prefix.after].stop
        )
        assert prefix.start < prefix.stop <= len(examples[prefix.example])
    firsts = [prefix.example for prefix in plan.prefixes]
    assert firsts == sorted(firsts)


@given(examples=any_examples)
@settings(deadline=None)
def test_a_prefix_has_the_same_tokens_and_mask_for_all_that_begin_with_it(
    examples: list[TokenizedExample],
) -> None:
    plan = plan_sharing(examples)
    for number, prefix in enumerate(plan.prefixes):
        users = [
            index for index in range(len(examples)) if number in plan.path(plan.of_example[index])
        ]
        assert len(users) >= 2
        assert users[0] == prefix.example
        tokens = tokens_of(examples[users[0]], 0, prefix.stop)
        assert all(tokens_of(examples[user], 0, prefix.stop) == tokens for user in users)
        assert prefix.is_stem == any(len(examples[user]) > prefix.stop for user in users)


@given(examples=any_examples, copies=st.lists(st.integers(0, 13), min_size=1, max_size=5))
@settings(deadline=None)
def test_whole_duplicates_are_always_stored_once(
    examples: list[TokenizedExample], copies: list[int]
) -> None:
    examples = examples + [
        replace(examples[copy % len(examples)], row_id=f"copy-{i}") for i, copy in enumerate(copies)
    ]
    plan, first = plan_sharing(examples), {}
    for index, example in enumerate(examples):
        first.setdefault(tuple(tokens_of(example)), []).append(index)
    for indices in first.values():
        if len(indices) > 1:
            assert len({plan.of_example[index] for index in indices}) == 1
            assert all(plan.shared_tokens(index) == len(examples[index]) for index in indices)


@given(examples=any_examples, data=st.data())
@settings(deadline=None)
def test_nothing_is_shared_from_where_masks_differ(
    examples: list[TokenizedExample], data: st.DataObject
) -> None:
    one = examples[0]
    place = data.draw(st.integers(0, len(one) - 1))
    mask = one.loss_mask.copy()
    mask[place] ^= True
    twins = [
        one,
        *[
            replace(one, row_id=str(copy), loss_mask=mask)
            for copy in range(data.draw(st.integers(1, 5)))
        ],
    ]
    plan = plan_sharing(twins)
    assert plan.shared_tokens(0) <= place
    assert not set(plan.path(plan.of_example[0])) - set(plan.path(plan.of_example[1]))


@given(examples=any_examples, shard_tokens=st.integers(1, 300))
@settings(deadline=None)
def test_every_prefix_is_stored_once_with_the_first_that_needs_it_and_nothing_is_stored_more_often_than_whole(
    examples: list[TokenizedExample], shard_tokens: int
) -> None:
    plan, lengths = plan_sharing(examples), [len(example) for example in examples]
    shards = plan_shards(lengths, shard_tokens)
    stored = [plan.stored_with(shard) for shard in shards]
    assert [number for numbers in stored for number in numbers] == list(range(len(plan.prefixes)))
    sizes = [plan.stored_lengths(shard, [lengths[index] for index in shard]) for shard in shards]
    assert [len(each) for each in sizes] == [
        len(n) + len(shard) for n, shard in zip(stored, shards, strict=True)
    ]
    assert min(map(min, sizes)) >= 0
    assert sum(map(sum, sizes)) <= sum(lengths)
    assert (sum(map(sum, sizes)) < sum(lengths)) == bool(plan.prefixes)
    known: set[int] = set()
    for shard, numbers in zip(shards, stored, strict=True):
        known |= set(numbers)
        assert all(set(plan.path(plan.of_example[index])) <= known for index in shard)


@given(examples=any_examples)
@settings(deadline=None)
def test_a_plan_depends_on_the_tokens_and_on_nothing_else(examples: list[TokenizedExample]) -> None:
    plan = plan_sharing(examples)
    assert plan_sharing(examples) == plan
    others = [
        TokenizedExample(
            f"other {len(examples) - i}",
            e.input_ids.astype(np.int64).astype(np.int32),
            e.loss_mask.copy(),
        )
        for i, e in enumerate(examples)
    ]
    assert plan_sharing(others) == plan


@given(examples=any_examples, seed=st.randoms(use_true_random=False))
@settings(deadline=None)
def test_what_is_shared_does_not_depend_on_the_order_of_the_rows(
    examples: list[TokenizedExample], seed: object
) -> None:
    order = list(range(len(examples)))
    seed.shuffle(order)  # type: ignore[attr-defined]
    plan, other = plan_sharing(examples), plan_sharing([examples[index] for index in order])
    for place, index in enumerate(order):
        stops = [plan.prefixes[number].stop for number in plan.path(plan.of_example[index])]
        assert [
            other.prefixes[number].stop for number in other.path(other.of_example[place])
        ] == stops


@given(examples=any_examples)
@settings(deadline=None)
def test_two_that_go_on_from_one_prefix_share_little_more(examples: list[TokenizedExample]) -> None:
    """Whatever two neighbours share beyond their common prefix would not have been worth it."""
    plan = plan_sharing(examples)
    order = sorted(range(len(examples)), key=lambda index: tokens_of(examples[index]))
    for one, other in pairwise(order):
        paths = [plan.path(plan.of_example[index]) for index in (one, other)]
        common = [a for a, b in zip(*paths, strict=False) if a == b]
        depth = plan.prefixes[common[-1]].stop if common else 0
        alike = [
            a == b
            for a, b in zip(tokens_of(examples[one]), tokens_of(examples[other]), strict=False)
        ]
        more = (alike.index(False) if False in alike else len(alike)) - depth
        assert more >= 0
        assert more < max(sharing._SHORTEST, sharing._LEAST_SAVED)


def test_prefixes_are_shared_from_where_it_is_worth_it() -> None:
    assume_usual()
    start = [(1, False)] * 8

    def rows(count: int, length: int) -> list[TokenizedExample]:
        return make([start[:length] + [(100 + index, True)] * 5 for index in range(count)])

    assert plan_sharing(rows(17, 8)).prefixes  # saves 16 x 8
    assert not plan_sharing(rows(16, 8)).prefixes
    assert not plan_sharing(rows(300, 7)).prefixes  # too short for a read of its own


def assume_usual() -> None:
    if sharing._SHORTEST == 1:
        pytest.skip("of the usual thresholds")


def test_prefixes_are_nested_where_some_share_more_than_others() -> None:
    system, question = [(1, False)] * 40, [(2, False)] * 70
    rows = [system + question + [(10 + index, True)] * 9 for index in range(4)] + [
        system + [(50 + i, True)] * 9 for i in range(4)
    ]
    plan = plan_sharing(make([*rows, rows[0], rows[7]]))
    assert [plan.shared_tokens(index) for index in range(10)] == [
        119,
        110,
        110,
        110,
        40,
        40,
        40,
        49,
        119,
        49,
    ]
    assert [(p.after, p.example, p.start, p.stop, p.is_stem) for p in plan.prefixes] == [
        (-1, 0, 0, 40, True), (0, 0, 40, 110, True), (1, 0, 110, 119, False), (0, 7, 40, 49, False),
    ]  # fmt: skip


def test_sharing_nothing_stores_all_whole() -> None:
    plan = share_nothing(3)
    assert (plan.prefixes, plan.of_example, plan.stored_with(range(3))) == ([], [-1] * 3, [])
    assert plan.stored_lengths(range(3), [4, 5, 6]) == [4, 5, 6]


def test_no_examples_share_nothing() -> None:
    assert plan_sharing([]) == share_nothing(0)
