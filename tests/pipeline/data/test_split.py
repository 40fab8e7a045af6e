"""The split of rows into training and held-out rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.split import split_rows


@given(count=st.integers(2, 300), share=st.floats(0.01, 0.99), seed=st.integers())
def test_every_row_is_on_one_side(count: int, share: float, seed: int) -> None:
    rows = [str(i) for i in range(count)]
    train, held_out = split_rows(rows, validation=share, seed=seed)
    assert sorted(train + held_out) == list(range(count))
    assert train
    assert held_out
    assert abs(len(held_out) - share * count) <= 1
    assert (train, held_out) == split_rows(rows, validation=share, seed=seed)


@pytest.mark.parametrize(("count", "share"), [(0, 0.1), (1, 0.1), (5, 0.0), (5, 1.0)])
def test_impossible_splits_are_refused(count: int, share: float) -> None:
    with pytest.raises(ValueError, match=r"split|between"):
        split_rows([str(i) for i in range(count)], validation=share, seed=0)
