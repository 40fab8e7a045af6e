"""Texts of examples: stored with their tokens, and equally checked."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import DamagedCacheError, open_cache, write_cache
from cache.codecs.bf16 import Bf16
from cache.containers import CONTAINER_NAMES, container_named
from cache.shard.content import Segment, shard_of_segments
from cache.upkeep.convert import convert_cache
from cache.upkeep.space import shard_size
from cache.upkeep.verify import verify_cache
from tests.cache.examples import make_attachments, make_manifest, make_shards

TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=2, max_size=6
)


def make(root: Path, texts: list[str], container: str) -> Path:
    (examples,) = make_shards([[3] * len(texts)])
    manifest, codecs = make_manifest([examples], container), {layer: Bf16() for layer in (-1, 0)}
    segments = [
        Segment(example.input_ids, example.loss_mask, example.hidden_states) for example in examples
    ]
    with write_cache(root, manifest, make_attachments(root.with_name("a"))) as writer:
        writer.publish(
            0,
            shard_of_segments(
                [example.row_id for example in examples], texts, [3] * len(texts), segments, codecs
            ),
        )
    return root


@settings(max_examples=15, deadline=None)
@given(
    texts=TEXTS, container=st.sampled_from(CONTAINER_NAMES), other=st.sampled_from(CONTAINER_NAMES)
)
def test_texts_are_read_back_with_the_predicted_size_and_survive_conversion(
    texts: list[str], container: str, other: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = make(Path(folder) / "c", texts, container)
        cache = open_cache(root)
        assert [cache.text(index) for index in range(len(cache))] == texts
        record = cache.records[0]
        assert record.text_bytes == sum(len(text.encode()) for text in texts)
        assert (
            shard_size(cache.manifest, [3] * len(texts), record.row_ids, record.text_bytes)
            == record.bytes
        )
        assert convert_cache(root, Path(folder) / "d", container=other).same_content
        assert [open_cache(Path(folder) / "d").text(index) for index in range(len(cache))] == texts
        assert verify_cache(root).whole
        with pytest.raises(IndexError):
            cache.text(len(texts))


@pytest.mark.parametrize("container", CONTAINER_NAMES)
def test_a_flipped_bit_of_a_text_names_its_example_and_is_never_read(
    container: str, tmp_path: Path
) -> None:
    root = make(tmp_path / "c", ["zero", "one", "two", "three"], container)
    kind = container_named(container)
    stored = kind.locate(root / "shards" / f"000000{kind.suffix}", ["text_bytes"])["text_bytes"]
    content = bytearray(stored.file.read_bytes())
    content[stored.offset + len("zeroon")] ^= 1
    stored.file.write_bytes(content)
    result = verify_cache(root)
    assert not result.whole
    assert {index for damage in result.damage for index in damage.examples} == {1}
    with pytest.raises(DamagedCacheError, match="shard 0, example 2"):
        open_cache(root).text(2)
