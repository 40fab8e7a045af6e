"""Token ids and loss masks of rendered conversations, in training and generation."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from pipeline.data.conversations import Turn
from pipeline.data.templates import (
    TEMPLATE_NAMES,
    TemplateName,
    end_token_id,
    render,
    render_prompt,
)
from pipeline.data.tokens import tokenize_parts, tokenize_prompt
from pipeline.errors import InputError
from tests.pipeline.data.rounds import RELAXED, ROUNDS, WORDS, turns_of


@pytest.mark.parametrize("template", TEMPLATE_NAMES)
@RELAXED
@given(rounds=ROUNDS, system=st.none() | WORDS)
def test_a_prompt_has_the_tokens_that_precede_the_answer_in_training(
    template: TemplateName,
    rounds: list[tuple[str, str]],
    system: str | None,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    turns = turns_of(rounds[:1], system)
    ids, mask = tokenize_parts(render(turns, template, tokenizer), tokenizer)
    prompt = tokenize_prompt(turns[:-1], template, tokenizer)
    assert ids[: len(prompt)] == prompt
    assert not any(mask[: len(prompt)])
    assert all(mask[len(prompt) :])


@pytest.mark.parametrize("template", TEMPLATE_NAMES)
@RELAXED
@given(rounds=ROUNDS, system=st.none() | WORDS)
def test_the_loss_mask_covers_answers_and_their_end_tokens_only(
    template: TemplateName,
    rounds: list[tuple[str, str]],
    system: str | None,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    ids, mask = tokenize_parts(render(turns_of(rounds, system), template, tokenizer), tokenizer)
    learned = [token for token, learn in zip(ids, mask, strict=True) if learn]
    ends = [
        index
        for index, learn in enumerate(mask)
        if learn and (index + 1 == len(mask) or not mask[index + 1])
    ]
    assert [ids[index] for index in ends] == [tokenizer.eos_token_id] * len(rounds)
    normal = tokenizer.decode(
        tokenizer("".join(answer for _, answer in rounds), add_special_tokens=False)["input_ids"]
    )
    written = tokenizer.decode([token for token in learned if token != tokenizer.eos_token_id])
    if template == "paper":  # a chat template may strip an answer's edges
        assert written == normal


def test_loss_on_all_covers_everything(tokenizer: PreTrainedTokenizerBase) -> None:
    parts = render(turns_of([("Q", "A")], "S"), "paper", tokenizer)
    assert all(tokenize_parts(parts, tokenizer, "all")[1])


def test_the_paper_template_is_system_prompt_question_and_answer(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    turns = turns_of([("Q", "A")], "S")
    text = "".join(part.text for part in render(turns, "paper", tokenizer))
    assert text == "S\n\nUser:\nQ\n\nAssistant:\nA<|im_end|>"
    assert [part.text for part in render_prompt(turns[:2], "paper", tokenizer)] == [
        "S\n\nUser:\nQ\n\nAssistant:\n"
    ]


def test_plain_text_is_learned_with_its_end_token(tokenizer: PreTrainedTokenizerBase) -> None:
    ids, mask = tokenize_parts(render([Turn("text", "a b")], "chat", tokenizer), tokenizer)
    assert all(mask)
    assert ids[-1] == tokenizer.eos_token_id


def test_a_missing_chat_template_is_refused(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(InputError, match="no chat template"):
        render(turns_of([("Q", "A")], None), "chat", tokenizer)


def test_a_chat_template_that_changes_earlier_turns_is_refused(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        tokenizer,
        "chat_template",
        "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}",
    )
    with pytest.raises(InputError, match="rewrites earlier turns"):
        render(turns_of([("Q", "A")], None), "chat", tokenizer)


def test_a_refusing_chat_template_is_reported(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", "{{ raise_exception('no system prompt') }}")
    with pytest.raises(
        InputError, match=r"refused the row \(no system prompt\); use --template paper"
    ):
        render(turns_of([("Q", "A")], "S"), "chat", tokenizer)


def test_answers_without_an_end_token_are_refused(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        tokenizer, "chat_template", "{% for m in messages %}{{ m.content }}. {% endfor %}"
    )
    with pytest.raises(InputError, match="ends answers without a special token"):
        end_token_id("chat", tokenizer)
    endless = copy.deepcopy(tokenizer)
    endless.eos_token = None
    with pytest.raises(InputError, match="has no end token"):
        render(turns_of([("Q", "A")], None), "paper", endless)
