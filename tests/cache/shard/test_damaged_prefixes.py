"""Damaged prefixes: all their examples are named and refused, others are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cache import DamagedCacheError, open_cache
from cache.codecs import CODEC_NAMES, packing_named
from cache.codecs.in_memory import InMemoryArray
from cache.containers import CONTAINER_NAMES, container_named
from cache.shard.layout import hidden_states_name
from cache.upkeep.verify import verify_cache
from tests.cache.shared_examples import make_shared

every_kind = pytest.mark.parametrize(
    ("container", "codec"), [(f, c) for f in CONTAINER_NAMES for c in CODEC_NAMES]
)


def damage_segment(root: Path, shard: int, segment: int, layer: int) -> None:
    """Flip a bit in the middle of a segment's stored states."""
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
    values = np.frombuffer(content, np.uint8)[offset : offset + size * row_bytes]
    segments = packing_named(manifest.codec_of[layer]).segments(
        InMemoryArray(values), size, record.stored.tolist(), manifest.hidden_size
    )
    start, stop = segments.stored_range(segment)
    del values, segments
    content[offset + (start + stop) * row_bytes // 2] ^= 0x40
    file.write_bytes(content)


@every_kind
@pytest.mark.parametrize(
    ("number", "shard", "segment"), [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 2, 0)]
)
def test_a_damaged_prefix_names_all_its_examples_in_all_shards(
    container: str, codec: str, number: int, shard: int, segment: int, tmp_path: Path
) -> None:
    made = make_shared()
    root = made.write(tmp_path / "c", container, codec)
    damage_segment(root, shard, segment, layer=-1)
    result = verify_cache(root)
    row_ids = [example.row_id for examples in made.whole for example in examples]
    assert not result.whole
    assert result.damage
    for damage in result.damage:
        assert (damage.shard, damage.examples) == (shard, made.reading(number))
        assert damage.row_ids == [row_ids[index] for index in made.reading(number)]


def test_a_damaged_segment_names_only_its_example(tmp_path: Path) -> None:
    made = make_shared()
    root = made.write(tmp_path / "c", "hdf5", "klt")
    damage_segment(root, 2, 2, layer=0)  # after prefix 3 and the first example
    assert {tuple(damage.examples) for damage in verify_cache(root).damage} == {(7,)}


@every_kind
def test_examples_of_a_damaged_prefix_are_refused_and_others_read(
    container: str, codec: str, tmp_path: Path
) -> None:
    made = make_shared()
    root = made.write(tmp_path / "c", container, codec)
    whole = [example for examples in made.whole for example in examples]
    damage_segment(root, 1, 0, layer=-1)  # prefix 2
    cache = open_cache(root)
    lost = set(made.reading(2)) | {3, 4, 5}  # and the rest of the shard that stores it
    for index, example in enumerate(whole):
        if index in lost:
            with pytest.raises(DamagedCacheError, match=example.row_id):
                cache[index]
        else:
            np.testing.assert_array_equal(cache[index].input_ids, example.input_ids)
