"""Batches decoded on the device equal examples read from the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from cache import open_cache
from cache.codecs import CODEC_NAMES
from pipeline.batches.collate import collate
from pipeline.batches.decoder import StatesDecoder
from pipeline.batches.whole_examples import WholeExamples
from tests.cache.examples import make_cache, make_shards


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_a_decoded_batch_equals_the_examples_of_the_cache_and_zeros(
    codec: str, workers: int, tmp_path: Path
) -> None:
    shards = make_shards([[5, 3, 9], [4, 7]], hidden_size=24)
    shards[0][1].hidden_states[-1][2] *= 1000  # stored exactly by klt
    cache = open_cache(make_cache(tmp_path / "c", shards, codec=codec))
    loader = DataLoader(
        WholeExamples(cache, range(5), [-1]), batch_size=3, collate_fn=collate, num_workers=workers
    )
    decoder, index = StatesDecoder([cache.codecs[-1]]), 0
    for batch in loader:
        decoded = decoder(batch)
        assert decoded.keys() == {"input_ids", "attention_mask", "labels", "hidden_states"}
        assert decoded["hidden_states"].dtype == torch.bfloat16
        for states in decoded["hidden_states"].float().numpy():
            expected = cache[index].hidden_states[-1].astype(np.float32)
            assert np.allclose(states[: len(expected)], expected, rtol=1e-2, atol=1e-2)
            assert not states[len(expected) :].any()
            index += 1
    assert index == 5


def test_layers_of_different_codecs_are_concatenated(tmp_path: Path) -> None:
    shards = make_shards([[5, 3], [4]], hidden_size=24, layers=(-1, 0))
    cache = open_cache(make_cache(tmp_path / "c", shards, codec={-1: "klt", 0: "bf16"}))
    batch = collate(WholeExamples(cache, range(3), [0, -1]).__getitems__([0, 1, 2]))
    states = (
        StatesDecoder([cache.codecs[0], cache.codecs[-1]])(batch)["hidden_states"].float().numpy()
    )
    assert states.shape == (3, 5, 48)
    for index in range(3):
        for place, layer in enumerate((0, -1)):
            expected = cache[index].hidden_states[layer].astype(np.float32)
            decoded = states[index, : len(expected), 24 * place : 24 * (place + 1)]
            assert np.allclose(decoded, expected, rtol=1e-2, atol=1e-2)


def test_an_exactly_stored_token_is_decoded_bit_by_bit(tmp_path: Path) -> None:
    shards = make_shards([[6, 8]], hidden_size=24)
    shards[0][1].hidden_states[-1][4] *= 1000
    cache = open_cache(make_cache(tmp_path / "c", shards, codec="klt"))
    batch = collate(WholeExamples(cache, range(2), [-1]).__getitems__([0, 1]))
    assert batch["exact_rows.0"].tolist() == [[1, 4]]
    states = StatesDecoder([cache.codecs[-1]])(batch)["hidden_states"][1, 4]
    assert np.array_equal(
        states.view(torch.uint16).numpy(), shards[0][1].hidden_states[-1][4].view(np.uint16)
    )
