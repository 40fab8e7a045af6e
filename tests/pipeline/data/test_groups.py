"""Groups of rows that share content or a source are never divided by the split."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.conversations import Conversation, Turn
from pipeline.data.groups import find_groups, read_groups, write_groups
from pipeline.data.split import split_rows
from pipeline.errors import InputError

ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from(["", "a", "b"])), min_size=2, max_size=30
)


def rows_of(content: list[tuple[int, str]]) -> list[Conversation]:
    return [
        Conversation(str(row), (Turn("user", f"Q{text}"),), group=group)
        for row, (text, group) in enumerate(content)
    ]


@given(ROWS, st.floats(0.05, 0.95), st.integers(0, 5))
def test_neither_content_nor_group_is_on_both_sides(
    content: list[tuple[int, str]], validation: float, seed: int
) -> None:
    rows = rows_of(content)
    groups = find_groups(rows)
    try:
        train, held_out = split_rows(
            [row.row_id for row in rows], validation=validation, seed=seed, groups=groups
        )
    except ValueError:
        assert len({groups.get(row.row_id, row.row_id) for row in rows}) == 1
        return
    assert sorted(train + held_out) == list(range(len(rows)))
    assert train
    assert held_out
    for key in (lambda index: content[index][0], lambda index: content[index][1] or index):
        assert not {key(index) for index in train} & {key(index) for index in held_out}


@given(ROWS)
def test_unrelated_rows_have_no_group(content: list[tuple[int, str]]) -> None:
    groups = find_groups(rows_of(content))
    for index, (text, group) in enumerate(content):
        others = content[:index] + content[index + 1 :]
        alone = all(text != other and (not group or group != name) for other, name in others)
        assert (str(index) in groups) is not alone


@pytest.mark.parametrize(
    ("count", "validation", "seed", "held_out"),
    [
        (10, 0.1, 0, [6]),
        (10, 0.3, 5, [4, 5, 9]),
        (40, 0.1, 0, [2, 16, 24, 26]),
        (25, 0.2, 1, [2, 4, 8, 18, 24]),
    ],
)
def test_without_groups_the_split_is_that_of_version_0_1(
    count: int, validation: float, seed: int, held_out: list[int]
) -> None:
    rows = [str(row) for row in range(count)]
    assert split_rows(rows, validation=validation, seed=seed)[1] == held_out


def test_white_space_and_case_do_not_separate_rows() -> None:
    rows = [
        Conversation("a", (Turn("user", "One  two\n"),)),
        Conversation("b", (Turn("user", "one two"),)),
    ]
    assert find_groups(rows) == {"a": 0, "b": 0}


def test_groups_survive_writing_and_reading(tmp_path: Path) -> None:
    write_groups(tmp_path / "none", {})
    assert not (tmp_path / "none").exists()
    write_groups(tmp_path / "some", {"a": 0, "b": 0})
    assert read_groups(tmp_path / "some") == {"a": 0, "b": 0}
    (tmp_path / "some" / "groups.json").write_text("[1]")
    with pytest.raises(InputError, match="not a mapping of row ids to groups"):
        read_groups(tmp_path / "some")
