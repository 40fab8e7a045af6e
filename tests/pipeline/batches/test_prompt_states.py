"""Answers of students of prompts, with the teacher's states of the text before them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from cache import open_cache
from pipeline.batches.answers import CachedAnswers
from pipeline.batches.collate import collate
from pipeline.batches.decoder import StatesDecoder
from pipeline.data.conversations import Turn
from pipeline.data.tokens import tokenize_prompt
from pipeline.data.transcript import Transcript
from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.teacher.source import find_teacher
from pipeline.training.run import train
from tests.conftest import write_rows
from tests.pipeline.short_runs import short_prompt_run

Message = dict[str, str]
QUESTION = "Ann has 2 pens. Ann buys 3 pens. How many pens does Ann have now?"
FIRST_ROUND: list[Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": QUESTION},
    {"role": "assistant", "content": "She has 5 pens now."},
]
CONVERSATION: list[Message] = [
    *FIRST_ROUND,
    {"role": "user", "content": "And if Ann sells 1?"},
    {"role": "assistant", "content": "Then 4."},
]
OTHER_CONVERSATION: list[Message] = [
    *FIRST_ROUND,
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "content": "Nothing."},
]


def turns_of(messages: list[Message]) -> list[Turn]:
    return [Turn(message["role"], message["content"]) for message in messages]  # type: ignore[arg-type]


def test_a_cache_of_prompts_has_the_states_that_precede_the_last_answer(
    prompt_cache: Path, small_cache: Path
) -> None:
    prompts, whole = open_cache(prompt_cache), open_cache(small_cache)
    assert prompts.identity["condition"] == "prompt"
    assert prompts.row_ids == whole.row_ids
    assert prompts.bytes < whole.bytes
    for index in range(len(prompts)):
        transcript = Transcript.from_json(prompts.text(index), "test")
        assert transcript == Transcript.from_json(whole.text(index), "test")
        prompt, example = prompts[index], whole[index]
        length = len(prompt)
        assert length == transcript.answers[-1].start == int(example.loss_mask.argmax())
        assert not prompt.loss_mask.any()
        assert prompt.input_ids.tolist() == example.input_ids[:length].tolist()
        for layer in (-1, 0):
            states, expected = (
                torch.from_numpy(one.hidden_states[layer].astype("float32"))
                for one in (prompt, example)
            )
            torch.testing.assert_close(states, expected[:length], atol=2e-2, rtol=2e-2)


@pytest.fixture(params=["prompt", "sequence"])
def conversations(
    request: pytest.FixtureRequest,
    embedded_settings: Callable[..., ExtractSettings],
    tmp_path: Path,
) -> Path:
    """Return a cache of two conversations of two rounds that share the first."""
    rows = [{"messages": CONVERSATION}, {"messages": OTHER_CONVERSATION}]
    settings = embedded_settings(
        dataset=str(write_rows(tmp_path / "rows.jsonl", rows)),
        condition=request.param,
        layers=(-1,),
        limit=None,
        sharing=False,
    )
    extract(prepare(settings))
    return Path(str(settings.cache))


def test_each_answer_has_the_states_of_all_text_before_it(
    conversations: Path, byte_gpt_neo: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(byte_gpt_neo)
    with open_cache(conversations) as cache:
        answers = CachedAnswers(cache, [0, 1], [-1], tokenizer)
        assert answers.indices == [0, 0, 1, 1]
        teachers = AutoTokenizer.from_pretrained(cache.attachment("tokenizer"))
        prompts = [row[:end] for row in (CONVERSATION, OTHER_CONVERSATION) for end in (2, 4)]
        texts = [FIRST_ROUND[2], CONVERSATION[4], FIRST_ROUND[2], OTHER_CONVERSATION[4]]
        for place, (prompt, answer) in enumerate(zip(prompts, texts, strict=True)):
            features = answers[place]
            ids, mask = features["input_ids"], features["loss_mask"]
            assert tokenizer.decode(ids[mask]) == answer["content"] + "<|endoftext|>"
            assert ids[~mask].tolist() == [tokenizer.bos_token_id]
            before = tokenize_prompt(turns_of(prompt), "paper", teachers)
            assert len(features["hidden_states.0"]) == len(features["states_mask"]) == len(before)
            assert cache[answers.indices[place]].input_ids[: len(before)].tolist() == before
        torch.testing.assert_close(answers[0]["hidden_states.0"], answers[2]["hidden_states.0"])


def test_an_answer_with_its_prompt_learns_the_answer_alone(
    conversations: Path, byte_gpt_neo: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(byte_gpt_neo)
    with open_cache(conversations) as cache:
        answers = CachedAnswers(cache, [0], [], tokenizer, with_prompts=True)
    ids, mask = answers[1]["input_ids"], answers[1]["loss_mask"]
    assert tokenizer.decode(ids).endswith("Assistant:\nThen 4.<|endoftext|>")
    assert tokenizer.decode(ids[mask]) == "Then 4.<|endoftext|>"
    assert "She has 5 pens now.<|endoftext|>" in tokenizer.decode(ids[~mask])


def test_long_answers_are_left_out_and_counted(conversations: Path, byte_gpt_neo: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(byte_gpt_neo)
    with open_cache(conversations) as cache:
        answers = CachedAnswers(cache, [0, 1], [-1], tokenizer, longest=11)
    assert (answers.indices, answers.left_out) == ([0, 1], 2)


@pytest.mark.parametrize(("codec", "options"), [("int8", {}), ("klt", {"fidelity": ("rel=0.05",)})])
def test_lossy_states_are_cut_like_exact_ones(
    codec: str,
    options: dict[str, Any],
    embedded_settings: Callable[..., ExtractSettings],
    byte_gpt_neo: Path,
    tmp_path: Path,
) -> None:
    rows = [{"messages": CONVERSATION}, *[{"messages": FIRST_ROUND}] * 3]
    settings = embedded_settings(
        dataset=str(write_rows(tmp_path / "rows.jsonl", rows)),
        condition="prompt",
        codec=(codec,),
        layers=(-1, 0),
        limit=None,
        **options,
    )
    extract(prepare(settings))
    tokenizer = AutoTokenizer.from_pretrained(byte_gpt_neo)
    with open_cache(settings.cache) as cache:
        answers = CachedAnswers(cache, range(len(cache)), [-1, 0], tokenizer)
        items = collate(answers.__getitems__(range(len(answers))))
        batch = StatesDecoder([cache.codecs[-1], cache.codecs[0]])(items)
        for place, index in enumerate(answers.indices):
            length = int(batch["states_mask"][place].sum())
            layers = [
                torch.from_numpy(cache[index].hidden_states[layer][:length].astype("float32"))
                for layer in (-1, 0)
            ]
            states = batch["hidden_states"][place]
            expected = torch.cat(layers, dim=-1)
            torch.testing.assert_close(states[:length].float(), expected, atol=1e-2, rtol=1e-2)
            assert not states[length:].any()


def test_answers_with_prompts_leave_out_the_same_rows(
    prompt_cache: Path, byte_gpt_neo: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(byte_gpt_neo)
    with open_cache(prompt_cache) as cache:
        lengths = CachedAnswers(cache, range(40), [], tokenizer).lengths
        longest = sorted(lengths)[20] - 1  # without the begin token
        alone, with_prompts = (
            CachedAnswers(cache, range(40), [], tokenizer, with_prompts=whole, longest=longest)
            for whole in (False, True)
        )
    assert alone.left_out == with_prompts.left_out > 0
    assert alone.indices == with_prompts.indices
    assert alone.occurring == with_prompts.occurring


def test_the_size_of_an_answer_includes_the_states_of_its_prompt(
    prompt_cache: Path, byte_gpt_neo: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(byte_gpt_neo)
    with open_cache(prompt_cache) as cache:
        answers = CachedAnswers(cache, range(40), [-1], tokenizer)
        states = [len(answers[place]["states_mask"]) for place in range(40)]
    assert answers.sizes == [
        length + prompt for length, prompt in zip(answers.lengths, states, strict=True)
    ]


def test_an_encoder_has_read_prompts_alone_so_nothing_leaks(
    embedded_settings: Callable[..., ExtractSettings], byte_gpt_neo: Path, tmp_path: Path
) -> None:
    config = BertConfig(
        vocab_size=600,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(tmp_path / "encoder")
    find_teacher(EMBEDDED_TEACHER).load_tokenizer().save_pretrained(tmp_path / "encoder")
    rows = [
        {"messages": [{"role": "system", "content": f"Be brief, {name}."}, *CONVERSATION[1:]]}
        for name in ("Ann", "Bob", "Cleo")
    ]
    settings = embedded_settings(
        teacher=str(tmp_path / "encoder"),
        teacher_kind="encoder",
        condition="prompt",
        layers=(-1,),
        dataset=str(write_rows(tmp_path / "rows.jsonl", rows)),
        limit=None,
    )
    extract(prepare(settings))
    run = short_prompt_run(
        Path(str(settings.cache)), tmp_path / "run", student=str(byte_gpt_neo), max_steps=2
    )
    assert not train(run).leaks
    with open_cache(settings.cache) as cache:
        for index in range(3):  # the last answer: an encoder's states depend on all its text
            assert len(Transcript.from_json(cache.text(index), "test").answers) == 1
