"""States that take positions of the decoder (`--join prefix`) are counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from cache import open_cache
from pipeline.batches.answers import CachedAnswers
from pipeline.data.alignment import TeacherReading
from pipeline.data.conversations import Turn
from pipeline.errors import InputError
from pipeline.evaluation.run import evaluate
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.generation.open_writer import open_writer
from pipeline.generation.settings import Sampling, WriterSettings
from pipeline.runs.examples import teachers_tokenizer
from pipeline.training.run import train
from tests.pipeline.short_runs import make_byte_gpt_neo, short_prompt_run


def test_a_decoder_with_too_few_positions_for_tokens_and_states_is_refused(
    prompt_cache: Path, tmp_path: Path
) -> None:
    with open_cache(prompt_cache) as cache:
        tokenizer = AutoTokenizer.from_pretrained(make_byte_gpt_neo(tmp_path / "any", 64))
        answers = CachedAnswers(cache, range(len(cache)), [-1], tokenizer)
    needed = max(answers.sizes)
    assert max(answers.lengths) < needed - 1
    enough = make_byte_gpt_neo(tmp_path / "enough", positions=needed)
    few = make_byte_gpt_neo(tmp_path / "few", positions=needed - 1)
    run = short_prompt_run(prompt_cache, tmp_path / "run", join=("prefix",), max_steps=1)
    assert train(replace(run, student=str(enough))).finished
    settings = EvaluateSettings(run=run.run, samples=2, max_new_tokens=8, device="cpu")
    ablations = evaluate(settings).student.ablations
    assert ablations is not None and "mismatched" in ablations
    other = replace(run, run=tmp_path / "other", student=str(few))
    with pytest.raises(
        InputError, match=rf"has {needed - 1} positions, .* {needed} tokens with its states"
    ):
        train(other)
    assert train(replace(other, join=("cross",))).finished


def test_a_writer_counts_states_that_take_positions(
    prompt_cache: Path, byte_gpt_neo: Path, tmp_path: Path
) -> None:
    run = short_prompt_run(
        prompt_cache, tmp_path / "run", student=str(byte_gpt_neo), join=("prefix",), max_steps=1
    )
    train(run)
    writer = open_writer(WriterSettings(run=run.run, device="cpu"))
    teacher = TeacherReading(writer.template, teachers_tokenizer(open_cache(prompt_cache)))

    def prompt_of(states: int) -> list[Turn]:
        """Return the shortest prompt of at least that many states."""
        turns = [Turn("user", "pens")]
        while (missing := states - len(teacher.locate(turns).ids)) > 0:
            turns = [Turn("user", turns[0].text + " pens" * max(1, missing // 2))]
        return turns

    nearly = prompt_of(1010)
    room = 1024 - len(teacher.locate(nearly).ids) - 1  # a begin token
    (answer,) = writer.write([nearly], Sampling(max_new_tokens=100))
    assert 0 < answer.tokens <= room < 100
    with pytest.raises(InputError, match=r"prompt and answer have \d+ tokens with its states"):
        writer.log_likelihood(nearly, "a" * (room + 1))
    assert writer.log_likelihood(nearly, "a" * room)[0] < 0
    with pytest.raises(InputError, match="tokens with its states, this student reads 1024"):
        writer.write([prompt_of(1023)], Sampling(max_new_tokens=1))
