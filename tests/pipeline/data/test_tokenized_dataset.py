"""Data sets as tokenised examples: what is kept, left out and refused."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pipeline.data.conversations import Conversation, TokenRow, Turn
from pipeline.data.templates import (
    TEMPLATE_NAMES,
    TemplateName,
)
from pipeline.data.tokenized_dataset import TokenizedDataset, tokenize_conversations
from pipeline.data.tokens import tokenize_prompt
from pipeline.data.transcript import Transcript
from pipeline.errors import InputError, RowError
from tests.pipeline.data.rounds import RELAXED, ROUNDS, turns_of


def test_long_examples_are_left_out_and_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [
        Conversation("0", (Turn("text", "a b c"),)),
        Conversation("1", (Turn("text", "a b c " * 50),)),
    ]
    dataset = tokenize_conversations(
        rows, tokenizer, template="paper", loss_on="assistant", max_tokens=20
    )
    assert [example.row_id for example in dataset.examples] == ["0"]
    assert dataset.left_out == {"over 20 tokens": 1}


def test_rows_without_an_answer_are_left_out_and_counted(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    rows = [Conversation("0", (Turn("user", "a"),))]
    dataset = tokenize_conversations(
        rows, tokenizer, template="paper", loss_on="assistant", max_tokens=20
    )
    assert dataset.examples == []
    assert sum(dataset.left_out.values()) == 1


@pytest.mark.parametrize("template", TEMPLATE_NAMES)
@RELAXED
@given(rounds=ROUNDS)
def test_the_prompt_of_a_later_turn_has_the_tokens_before_its_answer(
    template: TemplateName, rounds: list[tuple[str, str]], tokenizer: PreTrainedTokenizerBase
) -> None:
    turns = turns_of(rounds, "S")
    dataset = tokenize_conversations(
        [Conversation("0", tuple(turns))],
        tokenizer,
        template=template,
        loss_on="assistant",
        max_tokens=9999,
    )
    (example,) = dataset.examples
    answers = Transcript.from_json(example.text, "test").answers
    assert len(answers) == len(rounds)
    for answer in answers:
        assert (
            tokenize_prompt(turns[: answer.turn], template, tokenizer)
            == example.input_ids[: answer.start].tolist()
        )


def tokenized(
    turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase, **options: object
) -> TokenizedDataset:
    how = {"template": "paper", "loss_on": "assistant", "max_tokens": 9999} | options
    return tokenize_conversations(
        [Conversation("7", tuple(turns), where="rows.jsonl: row 7")], tokenizer, **how
    )  # type: ignore[arg-type]


@RELAXED
@given(
    rounds=ROUNDS,
    unlearned=st.sets(st.integers(0, 2)),
    loss_on=st.sampled_from(["assistant", "all"]),
)
def test_an_excluded_answer_carries_no_loss(
    rounds: list[tuple[str, str]],
    unlearned: set[int],
    loss_on: str,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    turns = turns_of(rounds, None)
    marked = [
        replace(turn, learn=number // 2 not in unlearned) if turn.role == "assistant" else turn
        for number, turn in enumerate(turns)
    ]
    (whole,) = tokenized(turns, tokenizer, loss_on="all").examples
    examples = tokenized(marked, tokenizer, loss_on=loss_on).examples
    if not examples:
        assert unlearned >= set(range(len(rounds)))
        return
    assert examples[0].input_ids.tolist() == whole.input_ids.tolist()
    ends = [index for index, token in enumerate(whole.input_ids) if token == tokenizer.eos_token_id]
    assert [bool(examples[0].loss_mask[end]) for end in ends] == [
        number not in unlearned for number in range(len(rounds))
    ]
    answers = Transcript.from_json(examples[0].text, "test").answers
    assert [answer.turn // 2 for answer in answers] == [
        number for number in range(len(rounds)) if number not in unlearned
    ]


@pytest.mark.parametrize("template", TEMPLATE_NAMES)
def test_rows_that_contain_control_tokens_are_refused(
    template: TemplateName, tokenizer: PreTrainedTokenizerBase
) -> None:
    turns = turns_of([("What is <|im_end|>?", "An end.")], None)
    with pytest.raises(
        InputError,
        match=(
            r"^rows\.jsonl: row 7: the text of turn 0 \(user\) contains the control token"
            r" '<\|im_end\|>'.*--skip-bad-rows"
        ),
    ):
        tokenized(turns, tokenizer, template=template)
    assert tokenized(turns, tokenizer, template=template, skip_bad_rows=True).left_out == {
        "control tokens in the text": 1
    }
    with pytest.raises(RowError, match="control token"):
        tokenize_prompt(turns[:1], template, tokenizer)


def test_tokens_without_an_embedding_are_refused(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    turns = turns_of([("Q", "A")], None)
    (example,) = tokenized(turns, tokenizer).examples
    most = int(example.input_ids.max())
    assert tokenized(turns, tokenizer, vocab_size=most + 1).examples
    with pytest.raises(InputError, match=rf"row 7: token \d+ is {most} "):
        tokenized(turns, tokenizer, vocab_size=most)
    assert tokenized(turns, tokenizer, vocab_size=most, skip_bad_rows=True).left_out == {
        "tokens beyond the teacher's embeddings": 1
    }


def test_token_rows_stay_as_they_are(tokenizer: PreTrainedTokenizerBase) -> None:
    row = TokenRow(np.array([5, 6, 7], np.int32), np.array([False, True, True]))
    dataset = tokenize_conversations(
        [Conversation("0", (), row)],
        tokenizer,
        template="paper",
        loss_on="assistant",
        max_tokens=3,
        vocab_size=8,
    )
    (example,) = dataset.examples
    assert (example.input_ids.tolist(), example.loss_mask.tolist()) == (
        [5, 6, 7],
        [False, True, True],
    )
    assert Transcript.from_json(example.text, "test").turns == (
        Turn("text", tokenizer.decode([6, 7])),
    )


def test_examples_with_unknown_characters_are_counted(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    words = Tokenizer(WordLevel({"<unk>": 0, "<end>": 1, "one": 2, "two": 3}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    small = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<end>")
    rows = [
        Conversation(str(row), (Turn("text", text),))
        for row, text in enumerate(["one two", "one three", "two"])
    ]
    assert (
        tokenize_conversations(
            rows, small, template="paper", loss_on="assistant", max_tokens=9
        ).unknown
        == 1
    )
    assert (
        tokenize_conversations(
            rows, tokenizer, template="paper", loss_on="assistant", max_tokens=99
        ).unknown
        == 0
    )
