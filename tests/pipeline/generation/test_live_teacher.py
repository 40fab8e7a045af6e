"""A live teacher returns the states of one pass, however a student's tokens arrive."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.generation.live_teacher import LiveTeacher
from pipeline.model import LLMModulesForCausalLM, build_student
from pipeline.shapes import BridgeShape
from pipeline.teacher.load import load_teacher
from pipeline.teacher.model import Teacher
from pipeline.teacher.source import find_teacher
from tests.pipeline.teacher.families import UNSHARED, plain_pass, tiny_body

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher(find_teacher(EMBEDDED_TEACHER), [-1], CPU, "fp32")


@pytest.fixture(scope="module")
def student(teacher: Teacher) -> LLMModulesForCausalLM:
    torch.manual_seed(0)
    model = build_student(
        "tiny",
        vocab_size=576,
        longest=64,
        teacher_hidden_size=teacher.width,
        condition="sequence",
        eos_token_id=2,
        pad_token_id=0,
    )
    return model.eval()


@settings(max_examples=25, deadline=None)
@given(
    pieces=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    seed=st.integers(0, 999),
    choices=st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=5, max_size=5),
)
def test_dropped_doubled_and_exchanged_rows_are_followed(
    pieces: list[int], seed: int, choices: list[list[int]], teacher: Teacher
) -> None:
    generator = torch.Generator().manual_seed(seed)
    reader = LiveTeacher(teacher, [-1], CPU)
    ids = torch.randint(3, 500, (3, 0), generator=generator)
    for length, rows in zip(pieces, choices, strict=False):
        first = ids.shape[1]
        ids = torch.cat([ids[rows], torch.randint(3, 500, (3, length), generator=generator)], dim=1)
        states = reader.read(ids, torch.ones_like(ids), first)
        whole = teacher.hidden_states(ids)[-1].bfloat16()
        torch.testing.assert_close(states, whole[:, first:], atol=5e-2, rtol=5e-2)
        torch.testing.assert_close(
            reader.read(ids, torch.ones_like(ids), 0), whole, atol=5e-2, rtol=5e-2
        )


def test_other_text_is_read_from_the_start(teacher: Teacher) -> None:
    reader = LiveTeacher(teacher, [-1], CPU)
    reader.read(torch.tensor([[5, 6, 7]]), None, 0)
    for ids in (torch.tensor([[9, 6, 7, 8]]), torch.tensor([[9, 6]])):
        torch.testing.assert_close(
            reader.read(ids, None, 0),
            teacher.hidden_states(ids)[-1].bfloat16(),
            atol=5e-2,
            rtol=5e-2,
        )


def test_states_are_rounded_as_in_a_cache(teacher: Teacher) -> None:
    ids = torch.tensor([[5, 6, 7]])
    states = LiveTeacher(teacher, [-1], CPU).read(ids, None, 0)
    assert states.dtype == torch.bfloat16
    assert torch.equal(states, teacher.hidden_states(ids)[-1].bfloat16())


def test_text_that_continues_is_not_read_again(teacher: Teacher) -> None:
    lengths: list[int] = []
    embeddings = teacher.body.get_input_embeddings()
    hook = embeddings.register_forward_hook(lambda *call: lengths.append(call[-1].shape[1]))
    reader = LiveTeacher(teacher, [-1], CPU)
    reader.read(torch.tensor([[5, 6, 7]]), None, 0)
    reader.read(torch.tensor([[5, 6, 7, 8]]), None, 3)
    hook.remove()
    assert lengths == [3, 1]


@torch.no_grad()
def test_beams_equal_those_without_a_key_value_cache(
    student: LLMModulesForCausalLM, teacher: Teacher
) -> None:
    ids = torch.tensor([[5, 6, 7, 8], [0, 9, 10, 11]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])
    options = {"attention_mask": mask, "max_new_tokens": 8, "num_beams": 3, "do_sample": False}
    cached, recomputed, greedy = (
        student.generate(ids, reader=LiveTeacher(teacher, [-1], CPU), **options | changes)
        for changes in ({}, {"use_cache": False}, {"num_beams": 1})
    )
    assert torch.equal(cached, recomputed)
    assert not torch.equal(cached[:, : greedy.shape[1]], greedy), "the beams equal greedy search"


@torch.no_grad()
def test_logits_of_generated_tokens_equal_those_of_one_pass(
    student: LLMModulesForCausalLM, teacher: Teacher
) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    written = student.generate(
        ids,
        reader=LiveTeacher(teacher, [-1], CPU),
        max_new_tokens=20,
        min_new_tokens=20,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    whole = student(hidden_states=teacher.hidden_states(written.sequences)[-1].bfloat16()).logits
    torch.testing.assert_close(
        torch.stack(written.logits, dim=1), whole[:, 3:-1], atol=2e-2, rtol=2e-2
    )


@torch.no_grad()
def test_bidirectional_attention_recomputes_all_states_for_each_token(
    teacher: Teacher,
) -> None:
    torch.manual_seed(0)
    leaking = build_student(
        "tiny",
        vocab_size=576,
        longest=64,
        teacher_hidden_size=teacher.width,
        condition="sequence",
        eos_token_id=2,
        pad_token_id=0,
        bridge=BridgeShape(cross_attention="bidirectional"),
    ).eval()
    written = leaking.generate(
        torch.tensor([[5, 6, 7]]),
        reader=LiveTeacher(teacher, [-1], CPU),
        max_new_tokens=6,
        min_new_tokens=6,
        do_sample=False,
        use_cache=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    for step, logits in enumerate(written.logits):
        text = written.sequences[:, : 3 + step]
        plain = leaking(hidden_states=teacher.hidden_states(text)[-1].bfloat16()).logits[:, -1]
        torch.testing.assert_close(logits, plain, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("family", ["mamba", "jamba", "recurrent_gemma"])
def test_a_teacher_that_cannot_continue_reads_the_whole_text_again(family: str) -> None:
    plain, unshared = tiny_body(UNSHARED[family]()), Teacher(tiny_body(UNSHARED[family]()), (-1,))
    reader = LiveTeacher(unshared, [-1], CPU)
    ids, mask = torch.tensor([[5, 6, 7], [0, 9, 10]]), torch.tensor([[1, 1, 1], [0, 1, 1]])
    reader.read(ids, mask, 0)
    for token in (11, 12):
        ids, mask = (
            torch.cat([part, torch.full((2, 1), value)], dim=1)
            for part, value in ((ids, token), (mask, 1))
        )
        states = reader.read(ids, mask, ids.shape[1] - 1)
        for row, first in ((0, 0), (1, 1)):
            exact = plain_pass(plain, ids[row, first:].tolist())[-1][-1]
            torch.testing.assert_close(states[row, 0].float(), exact, atol=2e-2, rtol=2e-2)
