"""Alignment of prompts: no student token reads a teacher token of later text."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase

from pipeline.data.alignment import TeacherReading, align_prompt
from pipeline.data.conversations import Turn
from pipeline.data.student_tokens import locate_prompt_tokens, prompt_tokens
from pipeline.data.templates import TemplateName, render_prompt
from pipeline.data.tokens import LocatedTokens
from pipeline.errors import InputError
from tests.pipeline.data.test_token_pieces import made

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)
TEXTS = TEXT | st.sampled_from(["the answer is 12 apples", "naïve café — ok", " 3 \n spiders "])


@st.composite
def prompts(draw: st.DrawFn) -> list[Turn]:
    """Return a prompt of a system turn, and one or two questions with the answer between them."""
    turns = [Turn("system", draw(TEXTS))] if draw(st.booleans()) else []
    turns.append(Turn("user", draw(TEXTS)))
    if draw(st.booleans()):
        turns += [Turn("assistant", draw(TEXTS)), Turn("user", draw(TEXTS))]
    return turns


def text_of(turns: list[Turn], template: TemplateName, tokenizer: PreTrainedTokenizerBase) -> str:
    return "".join(part.text for part in render_prompt(turns, template, tokenizer))


def text_before(located: LocatedTokens, place: int) -> str:
    assert located.ends is not None
    return located.text[: located.ends[place]] if place >= 0 else ""


@pytest.mark.parametrize("template", ["paper", "chat"])
@pytest.mark.parametrize("kind", ["same", "unigram", "llama"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(turns=prompts())
def test_places_are_in_order_and_the_last_token_reads_all(
    turns: list[Turn], tokenizer: PreTrainedTokenizerBase, kind: str, template: TemplateName
) -> None:
    student = tokenizer if kind == "same" else made(kind)
    teacher = TeacherReading(template, tokenizer)
    theirs = teacher.locate(turns)
    aligned = align_prompt(turns, teacher, theirs, student)
    assert aligned.ids == prompt_tokens(turns, student)
    assert len(aligned.places) == len(aligned.ids)
    assert aligned.places == sorted(aligned.places)
    assert aligned.places[-1] == len(theirs.ids) - 1
    assert all(-1 <= place < len(theirs.ids) for place in aligned.places)


@pytest.mark.parametrize("template", ["paper", "chat"])
@pytest.mark.parametrize("kind", ["same", "unigram"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    words=st.permutations("éàüößčşžñøåâêîôû"),
    cuts=st.sets(st.integers(1, 15)),
    answered=st.booleans(),
)
def test_a_token_reads_no_later_character(
    words: list[str],
    cuts: set[int],
    answered: bool,
    tokenizer: PreTrainedTokenizerBase,
    kind: str,
    template: TemplateName,
) -> None:
    """Each letter occurs once, so the letters that a token's state has read can be counted."""
    question = "".join(f" {word}" if place in cuts else word for place, word in enumerate(words))
    earlier = [Turn("user", "12 apples"), Turn("assistant", "3 spiders")] if answered else []
    turns = [Turn("system", "the answer"), *earlier, Turn("user", question)]
    student = tokenizer if kind == "same" else made(kind)
    ours, teacher = locate_prompt_tokens(turns, student), TeacherReading(template, tokenizer)
    theirs = teacher.locate(turns)
    places = align_prompt(turns, teacher, theirs, student).places
    after = ours.text.index(question) + len(question)
    assert ours.ends is not None
    read = 0
    for end, place in zip(ours.ends, places, strict=True):
        seen = {*words} & {*text_before(theirs, place)}
        assert end > after or seen <= {*ours.text[:end]}
        read = max(read, len(seen)) if end <= after else read
    assert read >= len(words) - 1


def test_equal_tokenizers_and_templates_align_one_to_one(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    turns = [Turn("system", "Count."), Turn("user", "How many legs do two spiders have")]
    teacher = TeacherReading("paper", tokenizer)
    theirs = teacher.locate(turns)
    aligned = align_prompt(turns, teacher, theirs, tokenizer)
    begin = len(aligned.ids) - len(theirs.ids)
    inside = [place for place, end in enumerate(aligned.places) if end == place - begin]
    assert len(inside) > len(aligned.ids) // 2


def test_a_tokenizer_without_offsets_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    turns, teacher = [Turn("user", "a")], TeacherReading("paper", tokenizer)
    with pytest.raises(InputError, match="--join add: the student's tokenizer"):
        align_prompt(turns, teacher, teacher.locate(turns), ByT5Tokenizer())


@pytest.mark.parametrize("template", ["paper", "chat"])
@pytest.mark.parametrize("text", ["user", "User", "system", "im_start", "assistant", "start"])
def test_a_turn_is_not_mistaken_for_a_heading(
    text: str, template: TemplateName, tokenizer: PreTrainedTokenizerBase
) -> None:
    turns = [Turn("system", text), Turn("user", text), Turn("assistant", text), Turn("user", text)]
    teacher = TeacherReading(template, tokenizer)
    theirs, ours = teacher.locate(turns), locate_prompt_tokens(turns, tokenizer)
    places = align_prompt(turns, teacher, theirs, tokenizer).places
    marked = [Turn(turn.role, "§" * len(text)) for turn in turns]  # as long, and nowhere else
    texts = [text_of(marked, "paper", tokenizer), text_of(marked, template, tokenizer)]
    ends = [[match.end() for match in re.finditer("§" * len(text), marks)] for marks in texts]
    assert ours.ends is not None
    read = dict(zip(ours.ends, [len(text_before(theirs, place)) for place in places], strict=True))
    for end, their_end in zip(*ends, strict=True):
        assert read[end] == their_end
