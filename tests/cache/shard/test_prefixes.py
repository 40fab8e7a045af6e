"""Shared prefixes: nobody who reads can tell that they are stored once; what is missing or damaged
names all who read it."""

from __future__ import annotations

import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore, ZipStore

from cache import Cache, CacheError, DamagedCacheError, open_cache
from cache.codecs import CODEC_NAMES, CodedStates, packing_named
from cache.codecs.in_memory import InMemoryArray
from cache.containers import CONTAINER_NAMES, container_named
from cache.journal import Journal, scan_journal
from cache.shard.layout import hidden_states_name
from cache.shard.prefixes import Prefixes
from cache.shard.record import ShardRecord
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
def test_a_cache_of_shared_prefixes_reads_like_one_of_whole_examples(
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


def test_where_memory_holds_one_prefix_alone_the_others_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_shared()
    root = made.write(tmp_path / "c")
    plenty = open_cache(root)
    order = [*range(len(plenty)), *reversed(range(len(plenty)))]
    wanted = [plenty[index] for index in order]
    monkeypatch.setattr("cache.shard.prefix_cache.PREFIX_BYTES", 1)
    scarce = open_cache(root)
    assert all(
        same_example(scarce[index], example) for index, example in zip(order, wanted, strict=True)
    )


@every_format
def test_layers_are_read_one_by_one_as_they_are_together(container: str, tmp_path: Path) -> None:
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
    """Any forest of prefixes, and examples that begin with any of them."""
    count = draw(st.integers(0, 6))
    prefixes = [
        (draw(st.integers(-1, number - 1)), draw(st.integers(1, 9))) for number in range(count)
    ]
    cut = st.tuples(st.integers(-1, count - 1), st.integers(0, 9)).filter(
        lambda each: each != (-1, 0)
    )
    cut = cut.map(lambda each: (each[0], max(each[1], each[0] == -1)))
    return prefixes, draw(st.lists(st.lists(cut, min_size=1, max_size=5), min_size=1, max_size=3))


@given(
    cuts=cuts_of_a_cache(),
    container=st.sampled_from(CONTAINER_NAMES),
    codec=st.sampled_from(CODEC_NAMES),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=25)
def test_examples_cut_in_any_way_are_read_whole(
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
def test_converting_keeps_what_is_shared(container: str, tmp_path: Path) -> None:
    made = make_shared()
    source = made.write(tmp_path / "c", container)
    other = next(name for name in CONTAINER_NAMES if name != container)
    assert convert_cache(source, tmp_path / "other", container=other).same_content
    found, wanted = open_cache(tmp_path / "other"), open_cache(source)
    assert [record.stored.tolist() for record in found.records] == [
        record.stored.tolist() for record in wanted.records
    ]
    assert all(same_example(found[index], wanted[index]) for index in range(len(wanted)))


@every_kind
def test_who_writes_into_an_example_changes_no_other(
    container: str, codec: str, tmp_path: Path
) -> None:
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


def test_threads_read_shared_prefixes_at_the_same_time(tmp_path: Path) -> None:
    cache = open_cache(make_shared().write(tmp_path / "c", "zarr", "klt"))
    wanted = [cache[index] for index in range(len(cache))]
    fresh, together = open_cache(cache.location), threading.Barrier(8)

    def read(start: int) -> bool:
        together.wait()
        indices = [(start + step) % len(wanted) for step in range(3 * len(wanted))]
        return all(same_example(fresh[index], wanted[index]) for index in indices)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(8)))


def damage_segment(root: Path, shard: int, segment: int, layer: int) -> None:
    """Flip a byte in the middle of a segment's stored states."""
    with open_cache(root) as cache:
        record, manifest = cache.records[shard], cache.manifest
    container, name = container_named(manifest.format), hidden_states_name(layer)
    path = root / "shards" / f"{shard:06d}{container.suffix}"
    stored = (
        container.locate(path, [name])[name]
        if manifest.format == "hdf5" or manifest.codec_of[layer] == "bf16"
        else None
    )
    file, offset = (stored.file, stored.offset) if stored else (path / name / "c" / "0" / "0", 0)
    content = bytearray(file.read_bytes())
    row_bytes, size = 1, len(content) - offset
    if spec := packing_named(manifest.codec_of[layer]).spec(
        record.stored_tokens, manifest.hidden_size
    ):
        row_bytes, size = spec.shape[1] * spec.dtype.itemsize, spec.shape[0]
    elif stored:
        size = stored.spec.shape[0]
    held = np.frombuffer(content, np.uint8)[offset : offset + size * row_bytes]
    segments = packing_named(manifest.codec_of[layer]).segments(
        InMemoryArray(held), size, record.stored.tolist(), manifest.hidden_size
    )
    start, stop = segments.stored_range(segment)
    del held, segments
    content[offset + (start + stop) * row_bytes // 2] ^= 0x40
    file.write_bytes(content)


@every_kind
@pytest.mark.parametrize(
    ("number", "shard", "segment"), [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 2, 0)]
)
def test_a_damaged_prefix_names_every_example_of_every_shard_that_reads_it(
    container: str, codec: str, number: int, shard: int, segment: int, tmp_path: Path
) -> None:
    made = make_shared()
    root = made.write(tmp_path / "c", container, codec)
    damage_segment(root, shard, segment, layer=-1)
    found = verify_cache(root)
    row_ids = [example.row_id for examples in made.whole for example in examples]
    assert not found.whole
    assert found.damage
    for damage in found.damage:
        assert (damage.shard, damage.examples) == (shard, made.reading(number))
        assert damage.row_ids == [row_ids[index] for index in made.reading(number)]


def test_a_damaged_segment_of_an_example_names_that_example_alone(tmp_path: Path) -> None:
    made = make_shared()
    root = made.write(tmp_path / "c", "hdf5", "klt")
    damage_segment(
        root, 2, 1 + 1, layer=0
    )  # after one prefix and one example without tokens of its own
    assert {tuple(damage.examples) for damage in verify_cache(root).damage} == {(7,)}


@every_kind
def test_what_reads_a_damaged_prefix_is_refused_and_the_rest_is_read(
    container: str, codec: str, tmp_path: Path
) -> None:
    made = make_shared()
    root = made.write(tmp_path / "c", container, codec)
    whole = [example for examples in made.whole for example in examples]
    damage_segment(root, 1, 0, layer=-1)  # prefix 2
    cache = open_cache(root)
    lost = set(made.reading(2)) | {3, 4, 5}  # and all of the shard that stores it
    for index, example in enumerate(whole):
        if index in lost:
            with pytest.raises(DamagedCacheError, match=example.row_id):
                cache[index]
        else:
            np.testing.assert_array_equal(cache[index].input_ids, example.input_ids)


def rewrite_records(root: Path, change: Callable[[list[ShardRecord]], list[ShardRecord]]) -> None:
    """Change the journal as somebody would who knows how its lines are sealed."""
    journal = scan_journal(root)
    records = change([journal.records[shard] for shard in sorted(journal.records)])
    Journal(journal.manifest, {record.shard: record for record in records}, []).write(root)


def changed(
    records: list[ShardRecord], shard: int, name: str, place: int, value: int
) -> list[ShardRecord]:
    values = getattr(records[shard], name).copy()
    values[place] = value
    return [*records[:shard], replace(records[shard], **{name: values}), *records[shard + 1 :]]


CONTRADICTIONS = {
    "a missing prefix": ("prefixes", 2, 1, 77, "needs shared prefix 77, which no shard"),
    "a prefix of other length": ("prefixes", 2, 2, 2, "tokens, its segments"),
    "no prefix": ("prefixes", 2, 2, -1, "tokens, its segments"),
    "one that is named twice": ("prefix_numbers", 1, 0, 1, "twice"),
    "one of another number": ("prefix_numbers", 2, 0, 9, "needs shared prefix 3"),
}


@every_format
@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_journal_that_contradicts_itself_is_refused(
    what: str, container: str, tmp_path: Path
) -> None:
    name, shard, place, value, said = CONTRADICTIONS[what]
    root = make_shared().write(tmp_path / "c", container)
    rewrite_records(root, lambda records: changed(records, shard, name, place, value))
    with pytest.raises(DamagedCacheError, match=said):
        open_cache(root)
    found = verify_cache(root)
    assert any(damage.file == "journal.jsonl" and said in damage.what for damage in found.damage)


def test_records_without_the_shard_that_stores_a_prefix_are_refused(tmp_path: Path) -> None:
    cache = open_cache(make_shared().write(tmp_path / "c"))
    assert len(Prefixes(cache.records)) == 4
    for records in (
        cache.records[1:],
        cache.records[2:],
        [cache.records[3]],
        [cache.records[0], cache.records[2]],
    ):
        with pytest.raises(
            DamagedCacheError,
            match=r"needs shared prefix [12], which no shard of the journal stores",
        ):
            Prefixes(records)


def test_prefixes_that_come_after_each_other_in_a_circle_are_no_record(tmp_path: Path) -> None:
    root = make_shared().write(tmp_path / "c")
    rewrite_records(root, lambda records: changed(records, 0, "prefixes", 0, 1))
    with pytest.raises(DamagedCacheError, match="not a shard record"):
        open_cache(root)


@pytest.mark.parametrize("codec", ["int8", "klt"])
@pytest.mark.parametrize("far", [0, 7])
def test_plain_zarr_gives_the_decoded_rows(codec: str, far: int, tmp_path: Path) -> None:
    made = make_shared(far=far)
    root = made.write(tmp_path / "c", "zarr", codec)
    cache = open_cache(root)
    for shard in range(len(cache.records)):
        content = cache.shard_content(shard, cache.layers)
        group = zarr.open_group(LocalStore(root / "shards" / f"{shard:06d}.zarr"), mode="r")
        for layer in cache.layers:
            coded = content.hidden_states[layer]
            assert isinstance(coded, CodedStates)
            wanted = cache.codecs[layer].decode(coded).astype(np.float32)
            array = group[f"hidden_states/{layer}"]
            assert (array.shape, array.dtype) == (wanted.shape, np.float32)
            np.testing.assert_allclose(array[...], wanted, rtol=2**-7, atol=1e-6)
            np.testing.assert_array_equal(array[3:7, ::2], array[...][3:7, ::2])
            np.testing.assert_array_equal(array[2], array[...][2])
            exact = np.concatenate(
                [segment.hidden_states[layer] for segment in made.segments[shard]]
            ).astype(np.float32)
            np.testing.assert_allclose(array[...], exact, atol=0.4, rtol=0.02)
            if codec == "klt":
                kept = coded.exact_rows
                assert kept is not None
                np.testing.assert_array_equal(array[...][kept], exact[kept])


def test_plain_zarr_finds_the_codec_by_itself_in_another_process(tmp_path: Path) -> None:
    root = make_shared().write(tmp_path / "c", "zarr", "klt")
    shard = root / "shards" / "000000.zarr"
    script = (
        f"import zarr; print(zarr.open_group({str(shard)!r},"
        " mode='r')['hidden_states/-1'][...].tobytes().hex())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    here = zarr.open_group(LocalStore(shard), mode="r")["hidden_states/-1"][...]
    np.testing.assert_allclose(
        np.frombuffer(bytes.fromhex(ran.stdout), np.float32).reshape(here.shape), here, rtol=2**-7
    )


@pytest.mark.parametrize("codec", ["int8", "klt"])
def test_plain_zarr_says_that_the_fit_is_missing(codec: str, tmp_path: Path) -> None:
    root = make_shared().write(tmp_path / "c", "zarr", codec)
    (root / "attachments" / "codecs" / "layer-1.safetensors").unlink()
    group = zarr.open_group(LocalStore(root / "shards" / "000000.zarr"), mode="r")
    with pytest.raises(CacheError, match=f"not in a cache that has a fit of the {codec} codec"):
        group["hidden_states/-1"][...]
    assert group["hidden_states/0"][...].shape == (22, 8)
    with pytest.raises(CacheError, match="fit"):
        zarr.open_group(
            LocalStore((root / "shards").rename(tmp_path / "elsewhere") / "000000.zarr"), mode="r"
        )["hidden_states/0"][...]


@pytest.mark.parametrize("codec", ["int8", "klt"])
def test_a_store_that_lies_nowhere_says_so(codec: str, tmp_path: Path) -> None:
    shard = make_shared().write(tmp_path / "c", "zarr", codec) / "shards" / "000000.zarr"
    with zipfile.ZipFile(tmp_path / "shard.zip", "w") as packed:
        for file in shard.rglob("*"):
            packed.write(file, file.relative_to(shard))
    with pytest.raises(CacheError, match="only a cache in a local folder"):
        zarr.open_group(ZipStore(tmp_path / "shard.zip"), mode="r")["hidden_states/-1"][...]


@pytest.mark.parametrize("container", CONTAINER_NAMES)
def test_what_stays_is_copied_as_it_is_stored(
    container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_shared().write(tmp_path / "source", "zarr", "klt")

    def never(*_: object) -> None:
        raise AssertionError("packed again")

    monkeypatch.setattr("cache.codecs.klt.pack_pages", never)
    result = convert_cache(source, tmp_path / "target", container=container)
    assert result.same_content
    assert result.bytes == open_cache(tmp_path / "target").bytes


@pytest.mark.parametrize("codec", ["int8", "klt"])
def test_plain_zarr_refuses_the_fit_of_another_cache(codec: str, tmp_path: Path) -> None:
    root, other = (
        make_shared(seed=seed).write(tmp_path / str(seed), "zarr", codec) for seed in (0, 1)
    )
    fit = "attachments/codecs/layer-1.safetensors"
    (root / fit).write_bytes((other / fit).read_bytes())
    with pytest.raises(CacheError, match=f"not the fit of this shard's {codec} codec"):
        zarr.open_group(LocalStore(root / "shards" / "000000.zarr"), mode="r")["hidden_states/-1"][
            ...
        ]
    with pytest.raises(CacheError):
        open_cache(root)
