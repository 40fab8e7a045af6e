"""Answers as a data set: tokenised once, and the same in every process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from cache import Cache, open_cache
from pipeline.batches.answers import CachedAnswers
from pipeline.batches.collate import collate
from pipeline.batches.examples import BatchItem
from pipeline.data.tokenizer import load_tokenizer
from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.labels import IGNORE


@pytest.fixture
def cache(small_cache: Path) -> Iterator[Cache]:
    with open_cache(small_cache) as opened:
        yield opened


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(EMBEDDED_TEACHER)


@pytest.mark.parametrize("with_prompts", [False, True])
def test_reading_does_not_tokenise(
    cache: Cache, tokenizer: PreTrainedTokenizerBase, with_prompts: bool
) -> None:
    calls: list[Any] = []
    tokenise = type(tokenizer).__call__

    def count(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        return tokenise(*arguments, **named)

    with patch.object(type(tokenizer), "__call__", count):
        answers = CachedAnswers(cache, range(8), [-1], tokenizer, with_prompts=with_prompts)
        assert len(calls) >= len(answers) > 0
        calls.clear()
        for _epoch in range(2):
            answers.__getitems__([BatchItem(place) for place in range(len(answers))])
    assert calls == []


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_loader_processes_read_the_same_answers(
    cache: Cache, tokenizer: PreTrainedTokenizerBase, start: str
) -> None:
    answers = CachedAnswers(cache, range(4), [-1], tokenizer)
    loader: DataLoader[Any] = DataLoader(
        answers, batch_size=2, collate_fn=collate, num_workers=1, multiprocessing_context=start
    )
    expected = [collate([answers[0], answers[1]]), collate([answers[2], answers[3]])]
    for batch, own in zip(loader, expected, strict=True):
        assert all(torch.equal(batch[name], values) for name, values in own.items())


def test_an_item_that_does_not_count_has_no_labels(
    cache: Cache, tokenizer: PreTrainedTokenizerBase
) -> None:
    answers = CachedAnswers(cache, [0], [-1], tokenizer)
    counted, repeated = (
        collate(answers.__getitems__([BatchItem(0, counts_in_loss=counts)]))
        for counts in (True, False)
    )
    assert (counted["labels"] != IGNORE).sum() > 0
    assert (repeated["labels"] == IGNORE).all()
    assert torch.equal(counted["input_ids"], repeated["input_ids"])


def test_occurring_tokens_are_those_of_the_answers(
    cache: Cache, tokenizer: PreTrainedTokenizerBase
) -> None:
    answers = CachedAnswers(cache, range(5), [], tokenizer, with_prompts=True)
    read = [answers[place] for place in range(len(answers))]
    assert answers.occurring == {
        token
        for features in read
        for token in features["input_ids"][features["loss_mask"]].tolist()
    }
    assert answers.lengths == [len(features["input_ids"]) for features in read]
