"""Shared prefixes, stored once, read like whole examples."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import Cache, open_cache
from cache.codecs import CODEC_NAMES
from cache.containers import CONTAINER_NAMES
from cache.upkeep.convert import convert_cache
from cache.upkeep.verify import verify_cache
from tests.cache.examples import make_cache, same_example
from tests.cache.shared_examples import Cut, Prefix, make_shared

every_kind = pytest.mark.parametrize(
    ("container", "codec"), [(f, c) for f in CONTAINER_NAMES for c in CODEC_NAMES]
)


every_format = pytest.mark.parametrize("container", CONTAINER_NAMES)


def same_coded(left: Cache, right: Cache, index: int) -> bool:
    one, other = left.coded_example(index).hidden_states, right.coded_example(index).hidden_states
    parts = ("values", "scales", "exact_rows", "exact_values")
    return one.keys() == other.keys() and all(
        np.array_equal(getattr(one[layer], part), getattr(other[layer], part))
        for layer in one
        for part in parts
    )


def kept_exactly(cache: Cache, index: int) -> list[int]:
    rows = cache.coded_example(index).hidden_states[-1].exact_rows
    assert rows is not None
    return rows.tolist()


@every_kind
@pytest.mark.parametrize("far", [0, 7])
def test_shared_prefixes_read_like_whole_examples(
    container: str, codec: str, far: int, tmp_path: Path
) -> None:
    made = make_shared(far=far)
    shared = open_cache(made.write(tmp_path / "shared", container, codec))
    whole = open_cache(make_cache(tmp_path / "whole", made.whole, container, codec=codec))
    assert (len(shared), shared.row_ids, shared.lengths.tolist()) == (
        len(whole),
        whole.row_ids,
        whole.lengths.tolist(),
    )
    assert sum(record.stored_tokens for record in shared.records) < sum(
        record.stored_tokens for record in whole.records
    )
    for index in [*range(len(whole)), *reversed(range(len(whole)))]:
        assert same_coded(shared, whole, index)
        assert same_example(shared[index], whole[index])
        if codec == "bf16":
            assert same_example(
                shared[index], [example for shard in made.whole for example in shard][index]
            )
    if codec == "klt":
        assert any(kept_exactly(whole, index) for index in range(len(whole))) == bool(far)
    assert verify_cache(shared.location).whole


def test_prefixes_beyond_the_memory_limit_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_shared()
    root = made.write(tmp_path / "c")
    unlimited = open_cache(root)
    order = [*range(len(unlimited)), *reversed(range(len(unlimited)))]
    expected = [unlimited[index] for index in order]
    monkeypatch.setattr("cache.shard.prefix_cache.PREFIX_BYTES", 1)
    limited = open_cache(root)
    assert all(
        same_example(limited[index], example)
        for index, example in zip(order, expected, strict=True)
    )


@every_format
def test_layers_read_alone_equal_layers_read_together(container: str, tmp_path: Path) -> None:
    cache = open_cache(make_shared().write(tmp_path / "c", container, "klt"))
    for index in range(len(cache)):
        together = cache[index]
        for layer in cache.layers:
            alone = cache.example(index, (layer,))
            assert list(alone.hidden_states) == [layer]
            np.testing.assert_array_equal(
                alone.hidden_states[layer].view(np.uint16),
                together.hidden_states[layer].view(np.uint16),
            )
        assert cache.example(index, ()).hidden_states == {}


@st.composite
def cuts_of_a_cache(draw: st.DrawFn) -> tuple[list[Prefix], list[list[Cut]]]:
    """Draw a forest of prefixes, and examples that begin with any of them."""
    count = draw(st.integers(0, 6))
    prefixes = [
        (draw(st.integers(-1, number - 1)), draw(st.integers(1, 9))) for number in range(count)
    ]
    cut = st.tuples(st.integers(-1, count - 1), st.integers(0, 9)).filter(
        lambda prefix_and_own: prefix_and_own != (-1, 0)
    )
    return prefixes, draw(st.lists(st.lists(cut, min_size=1, max_size=5), min_size=1, max_size=3))


@given(
    cuts=cuts_of_a_cache(),
    container=st.sampled_from(CONTAINER_NAMES),
    codec=st.sampled_from(CODEC_NAMES),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=25)
def test_examples_with_arbitrary_prefixes_are_read_whole(
    cuts: tuple[list[Prefix], list[list[Cut]]],
    container: str,
    codec: str,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    made = make_shared(*cuts, seed=seed, layers=(-1,))
    folder = tmp_path_factory.mktemp("cut")
    shared = open_cache(made.write(folder / "shared", container, codec))
    whole = open_cache(make_cache(folder / "whole", made.whole, container, codec=codec))
    for index in range(len(whole)):
        assert same_coded(shared, whole, index)
        assert same_example(shared[index], whole[index])
        path = shared.prefixes_of(index)
        assert [prefix.length for prefix in path] == sorted(prefix.length for prefix in path)
    assert verify_cache(shared.location).whole


@every_format
def test_converting_keeps_prefixes_shared(container: str, tmp_path: Path) -> None:
    made = make_shared()
    source = made.write(tmp_path / "c", container)
    other = next(name for name in CONTAINER_NAMES if name != container)
    assert convert_cache(source, tmp_path / "other", container=other).same_content
    converted, original = open_cache(tmp_path / "other"), open_cache(source)
    assert [record.stored.tolist() for record in converted.records] == [
        record.stored.tolist() for record in original.records
    ]
    assert all(same_example(converted[index], original[index]) for index in range(len(original)))


@every_kind
def test_modifying_an_example_changes_no_other(container: str, codec: str, tmp_path: Path) -> None:
    root = make_shared().write(tmp_path / "c", container, codec)
    cache = open_cache(root)
    for index in range(len(cache)):
        for values in (
            cache[index].input_ids,
            cache[index].loss_mask,
            *cache[index].hidden_states.values(),
        ):
            values[:] = 0
        for coded in cache.coded_example(index).hidden_states.values():
            coded.values[:] = 0
    untouched = open_cache(root)
    assert all(same_example(cache[index], untouched[index]) for index in range(len(cache)))


def test_threads_read_shared_prefixes_concurrently(tmp_path: Path) -> None:
    cache = open_cache(make_shared().write(tmp_path / "c", "zarr", "klt"))
    expected = [cache[index] for index in range(len(cache))]
    fresh, start = open_cache(cache.location), threading.Barrier(8)

    def read(first: int) -> bool:
        start.wait()
        indices = [(first + step) % len(expected) for step in range(3 * len(expected))]
        return all(same_example(fresh[index], expected[index]) for index in indices)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(8)))


@pytest.mark.parametrize("container", CONTAINER_NAMES)
def test_unchanged_layers_are_copied_without_packing_again(
    container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_shared().write(tmp_path / "source", "zarr", "klt")

    def never(*_: object) -> None:
        raise AssertionError("packed again")

    monkeypatch.setattr("cache.codecs.klt.pack_pages", never)
    result = convert_cache(source, tmp_path / "target", container=container)
    assert result.same_content
    assert result.bytes == open_cache(tmp_path / "target").bytes
