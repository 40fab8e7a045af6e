"""A whole causal LM that answers: batches, stop texts, seeds, and its template."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from pipeline.data.conversations import Turn
from pipeline.data.sources import load_conversations
from pipeline.data.tokens import tokenize_prompt
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.generation.causal_lm import CausalLMWriter, own_template
from pipeline.generation.settings import Sampling
from pipeline.teacher.load import load_causal_lm
from pipeline.teacher.source import find_teacher

GREEDY = Sampling(max_new_tokens=120)
PROMPTS = [row.prompt_turns for row in load_conversations(EMBEDDED_DATASET, limit=3).conversations]


@pytest.fixture(scope="module")
def writer() -> CausalLMWriter:
    source = find_teacher(EMBEDDED_TEACHER)
    model = load_causal_lm(source, torch.device("cpu"), "fp32")
    return CausalLMWriter(model, source.load_tokenizer(), "chat")


def test_a_batch_is_answered_like_single_prompts(writer: CausalLMWriter) -> None:
    together = writer.write(PROMPTS, GREEDY)
    assert together == [writer.write([prompt], GREEDY)[0] for prompt in PROMPTS]
    assert all(answer.stopped and 0 < answer.tokens < 120 for answer in together)
    assert all("\\boxed" in answer.text for answer in together)


def test_a_stop_text_ends_an_answer_and_a_limit_cuts_it(writer: CausalLMWriter) -> None:
    (whole,) = writer.write(PROMPTS[:1], GREEDY)
    stop = whole.text[20:25]
    (stopped,) = writer.write(PROMPTS[:1], replace(GREEDY, stop=(stop,)))
    assert stopped.stopped
    assert stopped.text == whole.text[: whole.text.index(stop)]
    (cut,) = writer.write(PROMPTS[:1], Sampling(max_new_tokens=5))
    assert not cut.stopped
    assert cut.tokens == 5
    assert whole.text.startswith(cut.text)


def test_samples_follow_from_the_seed_alone(writer: CausalLMWriter) -> None:
    sampling = Sampling(max_new_tokens=40, temperature=1.5)
    first = writer.write(PROMPTS, sampling)
    torch.rand(3)
    assert writer.write(PROMPTS, sampling) == first
    assert writer.write(PROMPTS, replace(sampling, seed=1)) != first


def test_a_model_without_a_chat_template_answers_in_the_other_one(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert own_template(tokenizer) == "chat"
    monkeypatch.setattr(tokenizer, "chat_template", None)
    assert own_template(tokenizer) == "paper"


def test_a_prefix_of_all_prompts_is_read_once_and_changes_no_answer(
    writer: CausalLMWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = writer._model, writer._tokenizer
    system = Turn("system", "Work the problem out step by step, and box the number. " * 4)
    asked = [[system, *(turn for turn in turns if turn.role != "system")] for turns in PROMPTS]
    ids = [tokenize_prompt(turns, "chat", tokenizer) for turns in asked]
    assert len({*map(len, ids)}) > 1  # there is padding
    plain = writer.write_after(ids, GREEDY)
    sharing = CausalLMWriter(model, tokenizer, "chat", ids)
    read: list[int] = []
    hook = model.get_input_embeddings().register_forward_hook(
        lambda _, args, __: read.append(args[0].shape[1])
    )
    monkeypatch.setattr(model.generation_config, "num_beams", 2)  # an answer is greedy all the same
    try:
        assert sharing.write_after(ids, GREEDY) == plain
    finally:
        hook.remove()
    assert read[0] < max(map(len, ids)) / 2
