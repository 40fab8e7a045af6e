"""Texts of a student with a live teacher: exact, batched, sampled, stopped, scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipeline.data.conversations import Turn
from pipeline.data.tokens import tokenize_prompt
from pipeline.device import choose_device
from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.errors import InputError
from pipeline.generation.settings import Sampling
from pipeline.generation.writer import StudentWriter
from pipeline.runs.folder import RunFolder
from pipeline.teacher.model import Teacher
from pipeline.teacher.verified_load import load_verified_teacher
from tests.conftest import RunCli

PROMPTS = [
    [Turn("user", "Ann has 20 pens. Ann buys 15 pens. How many pens does Ann have now?")],
    [Turn("system", "Be brief."), Turn("user", "Ben has 7 eggs.")],
]


@pytest.fixture(scope="module")
def teacher(trained_run: Path) -> Teacher:
    identity = RunFolder(trained_run).read_record().identity.cache
    return load_verified_teacher(EMBEDDED_TEACHER, [-1], identity, choose_device("cpu"))


@pytest.fixture(scope="module")
def writer(trained_run: Path, teacher: Teacher) -> StudentWriter:
    return StudentWriter(RunFolder(trained_run), lambda: teacher, choose_device("cpu"))


def prompt_tokens(writer: StudentWriter) -> list[int]:
    """Return the tokens of the first prompt."""
    return tokenize_prompt(PROMPTS[0], writer.template, writer.tokenizer)


@torch.no_grad()
def test_generation_with_key_value_caches_equals_recomputing_every_token(
    writer: StudentWriter, teacher: Teacher
) -> None:
    (answer,) = writer.write(PROMPTS[:1], Sampling(max_new_tokens=12))
    prompt, end = prompt_tokens(writer), writer.model.config.eos_token_id
    tokens: list[int] = []
    while len(tokens) < 12:
        states = teacher.hidden_states(torch.tensor([prompt + tokens]))[-1].bfloat16()
        logits = writer.model(hidden_states=states, logits_to_keep=1).logits
        token = int(logits[0, -1].argmax())
        if token == end:
            break
        tokens.append(token)
    assert answer.text == writer.tokenizer.decode(tokens)


def test_prompts_of_a_batch_do_not_affect_each_other(writer: StudentWriter) -> None:
    sampling = Sampling(max_new_tokens=20)
    alone = [writer.write([prompt], sampling)[0] for prompt in PROMPTS]
    assert writer.write(PROMPTS, sampling) == alone


def test_an_answer_is_streamed_in_pieces(writer: StudentWriter) -> None:
    pieces: list[str] = []
    (answer,) = writer.write(PROMPTS[:1], Sampling(max_new_tokens=20), pieces.append)
    assert "".join(pieces).strip() == answer.text.strip()
    assert len(pieces) > 1


def test_sampling_follows_its_seed(writer: StudentWriter) -> None:
    def sample(seed: int) -> str:
        sampling = Sampling(max_new_tokens=30, temperature=1.5, seed=seed)
        return writer.write(PROMPTS[:1], sampling)[0].text

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(4)}) > 1


def test_an_answer_ends_before_a_stop_text(
    writer: StudentWriter, trained_run: Path, run_cli: RunCli
) -> None:
    first, second = writer.write(PROMPTS, Sampling(max_new_tokens=20))
    stop = first.text.split()[1]
    sampling = Sampling(max_new_tokens=20, stop=(stop, "never written"))
    stopped = writer.write(PROMPTS, sampling)
    assert stopped[0].text == first.text[: first.text.index(stop)]
    assert stopped[0].stopped and stopped[0].tokens < first.tokens
    assert stopped[1].text == second.text.partition(stop)[0]
    pieces: list[str] = []
    writer.write(PROMPTS[:1], sampling, pieces.append)
    assert "".join(pieces) == stopped[0].text
    done = run_cli(
        *("generate", "--run", trained_run, "--prompt", PROMPTS[0][0].text, "--system", ""),
        *("--stop", stop, "--json", "--max-new-tokens", 20),
    )
    assert json.loads(done.stdout)["text"] == stopped[0].text


def test_an_empty_stop_text_is_refused(trained_run: Path, run_cli: RunCli) -> None:
    done = run_cli("generate", "--run", trained_run, "--prompt", "a", "--stop", "")
    assert done.returncode == 2
    assert "an empty text would end every answer" in done.stderr


def test_the_likelihood_of_an_answer_is_that_of_its_tokens(
    writer: StudentWriter, teacher: Teacher
) -> None:
    (answer,) = writer.write(PROMPTS[:1], Sampling(max_new_tokens=6))
    nats, is_likeliest = writer.log_likelihood(PROMPTS[0], answer.text)
    assert is_likeliest and nats < 0
    worse, is_likeliest = writer.log_likelihood(PROMPTS[0], "pens pens pens")
    assert not is_likeliest and worse < nats
    prompt = prompt_tokens(writer)
    tokens = writer.tokenizer(answer.text, add_special_tokens=False)["input_ids"]
    states = teacher.hidden_states(torch.tensor([prompt + tokens]))[-1].bfloat16()
    labels = torch.tensor([[-100] * len(prompt) + tokens])
    with torch.no_grad():
        loss = writer.model(hidden_states=states, labels=labels, num_items_in_batch=1).loss
    assert nats == pytest.approx(-float(loss), rel=1e-4)


def test_a_prompt_without_room_for_an_answer_is_refused(writer: StudentWriter) -> None:
    with pytest.raises(InputError, match="shorten it"):
        writer.write([[Turn("user", "word " * 4000)]], Sampling())


def test_a_prompt_and_an_answer_that_are_too_long_together_are_refused(
    writer: StudentWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = len(prompt_tokens(writer)) + 3
    monkeypatch.setattr(writer.model.config.body, "max_position_embeddings", tokens - 1)
    answer = " pens pens pens"
    assert len(writer.tokenizer(answer, add_special_tokens=False)["input_ids"]) == 3
    with pytest.raises(InputError, match=rf"have {tokens} tokens, more than this student reads"):
        writer.log_likelihood(PROMPTS[0], answer)
