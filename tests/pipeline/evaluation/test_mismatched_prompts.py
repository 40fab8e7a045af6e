"""Answers with the states of other prompts."""

from __future__ import annotations

from pathlib import Path

import torch

from cache import open_cache
from pipeline.batches.answers import CachedAnswers
from pipeline.data.alignment import TeacherReading
from pipeline.evaluation.ablations import MismatchedPrompts
from pipeline.runs.examples import teachers_tokenizer


def test_each_answer_has_the_states_of_the_next_prompt(prompt_cache: Path) -> None:
    with open_cache(prompt_cache) as cache:
        tokenizer = teachers_tokenizer(cache)
        teacher = TeacherReading(cache.identity["template"], tokenizer)
        matched = CachedAnswers(
            cache, range(8), [-1], tokenizer, with_prompts=True, aligned_with=teacher
        )
        for place in range(8):
            own, other = matched[place], matched[(place + 1) % 8]
            mismatched = MismatchedPrompts(matched)[place]
            assert torch.equal(mismatched["input_ids"], own["input_ids"])
            assert torch.equal(mismatched["hidden_states.0"], other["hidden_states.0"])
            assert len(mismatched["states_mask"]) == len(other["states_mask"])
            places = mismatched["state_places"]
            assert torch.equal(places, own["state_places"].clamp(max=len(other["states_mask"]) - 1))
