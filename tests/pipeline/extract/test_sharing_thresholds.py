"""Sharing plans of given tokens: thresholds, nested prefixes, nothing shared."""

from __future__ import annotations

from pipeline.data.tokenized_dataset import TokenizedExample
from pipeline.extract.sharing import SharedPrefix, plan_sharing, share_nothing
from tests.pipeline.extract.shared_tokens import make_examples


def examples_after(prefix_tokens: int, count: int) -> list[TokenizedExample]:
    """Return examples of five different tokens each, after a common prefix."""
    prefix = [(1, False)] * prefix_tokens
    return make_examples([prefix + [(100 + index, True)] * 5 for index in range(count)])


def test_a_prefix_is_shared_if_it_has_8_tokens_and_saves_128() -> None:
    assert plan_sharing(examples_after(8, 17)).prefixes  # saves 16 * 8
    assert not plan_sharing(examples_after(8, 16)).prefixes
    assert not plan_sharing(examples_after(7, 300)).prefixes


def test_prefixes_are_nested_if_some_examples_share_more() -> None:
    system, question = [(1, False)] * 40, [(2, False)] * 70
    rows = [system + question + [(10 + index, True)] * 9 for index in range(4)]
    rows += [system + [(50 + index, True)] * 9 for index in range(4)]
    plan = plan_sharing(make_examples([*rows, rows[0], rows[7]]))
    shared = [plan.shared_tokens(index) for index in range(10)]
    assert shared == [119, 110, 110, 110, 40, 40, 40, 49, 119, 49]
    assert plan.prefixes == [
        SharedPrefix(after=-1, example=0, start=0, stop=40, is_stem=True),
        SharedPrefix(after=0, example=0, start=40, stop=110, is_stem=True),
        SharedPrefix(after=1, example=0, start=110, stop=119, is_stem=False),
        SharedPrefix(after=0, example=7, start=40, stop=49, is_stem=False),
    ]


def test_without_sharing_examples_are_stored_whole() -> None:
    plan = share_nothing(3)
    assert (plan.prefixes, plan.of_example, plan.stored_with(range(3))) == ([], [-1] * 3, [])
    assert plan.stored_lengths(range(3), [4, 5, 6]) == [4, 5, 6]


def test_a_plan_of_no_examples_is_empty() -> None:
    assert plan_sharing([]) == share_nothing(0)
