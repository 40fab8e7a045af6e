"""The teacher beside a student that writes: however its tokens come, it gives the states of one
pass over them."""

from __future__ import annotations

from collections.abc import Iterator

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
def teacher() -> Iterator[Teacher]:
    yield load_teacher(find_teacher(EMBEDDED_TEACHER), [-1], CPU, "fp32")


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
def test_rows_that_are_dropped_doubled_and_exchanged_are_followed(
    pieces: list[int], seed: int, choices: list[list[int]], teacher: Teacher
) -> None:
    generator = torch.Generator().manual_seed(seed)
    reader = LiveTeacher(teacher, [-1], CPU)
    ids = torch.randint(3, 500, (3, 0), generator=generator)
    for length, rows in zip(pieces, choices, strict=False):
        first = ids.shape[1]
        ids = torch.cat([ids[rows], torch.randint(3, 500, (3, length), generator=generator)], dim=1)
        found = reader.read(ids, torch.ones_like(ids), first)
        whole = teacher.hidden_states(ids)[-1].bfloat16()
        torch.testing.assert_close(found, whole[:, first:], atol=5e-2, rtol=5e-2)
        torch.testing.assert_close(
            reader.read(ids, torch.ones_like(ids), 0), whole, atol=5e-2, rtol=5e-2
        )


def test_what_does_not_go_on_from_what_was_read_is_read_from_the_start(teacher: Teacher) -> None:
    reader = LiveTeacher(teacher, [-1], CPU)
    reader.read(torch.tensor([[5, 6, 7]]), None, 0)
    for ids in (torch.tensor([[9, 6, 7, 8]]), torch.tensor([[9, 6]])):
        torch.testing.assert_close(
            reader.read(ids, None, 0),
            teacher.hidden_states(ids)[-1].bfloat16(),
            atol=5e-2,
            rtol=5e-2,
        )


@torch.no_grad()
def test_beams_are_those_of_recomputing_everything(
    student: LLMModulesForCausalLM, teacher: Teacher
) -> None:
    ids = torch.tensor([[5, 6, 7, 8], [0, 9, 10, 11]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])
    options = {"attention_mask": mask, "max_new_tokens": 8, "num_beams": 3, "do_sample": False}
    cached = student.generate(ids, reader=LiveTeacher(teacher, [-1], CPU), **options)
    anew = student.generate(ids, reader=LiveTeacher(teacher, [-1], CPU), use_cache=False, **options)
    assert torch.equal(cached, anew)
    greedy = student.generate(
        ids, reader=LiveTeacher(teacher, [-1], CPU), **options | {"num_beams": 1}
    )
    assert not torch.equal(cached[:, : greedy.shape[1]], greedy), (
        "the beams found nothing of their own"
    )


@torch.no_grad()
def test_token_by_token_the_logits_are_those_of_the_full_pass(
    student: LLMModulesForCausalLM, teacher: Teacher
) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    written = student.generate(
        ids, reader=LiveTeacher(teacher, [-1], CPU), max_new_tokens=20, min_new_tokens=20, do_sample=False,
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    whole = student(hidden_states=teacher.hidden_states(written.sequences)[-1].bfloat16()).logits
    torch.testing.assert_close(
        torch.stack(written.logits, dim=1), whole[:, 3:-1], atol=2e-2, rtol=2e-2
    )


@torch.no_grad()
def test_the_published_attention_writes_with_all_states_seen_anew_at_each_token(
    teacher: Teacher,
) -> None:
    torch.manual_seed(0)
    leaking = build_student(
        "tiny", vocab_size=576, longest=64, teacher_hidden_size=teacher.width, condition="sequence", eos_token_id=2,
        pad_token_id=0, bridge=BridgeShape(cross_attention="bidirectional"),
    ).eval()  # fmt: skip
    written = leaking.generate(
        torch.tensor([[5, 6, 7]]), reader=LiveTeacher(teacher, [-1], CPU), max_new_tokens=6, min_new_tokens=6, do_sample=False,
        use_cache=False, output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    for step, logits in enumerate(written.logits):
        seen = written.sequences[:, : 3 + step]
        plain = leaking(hidden_states=teacher.hidden_states(seen)[-1].bfloat16()).logits[:, -1]
        torch.testing.assert_close(logits, plain, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("family", ["mamba", "jamba", "recurrent_gemma"])
def test_a_teacher_that_does_not_go_on_reads_the_whole_text_again(family: str) -> None:
    plain, unshared = tiny_body(UNSHARED[family]()), Teacher(tiny_body(UNSHARED[family]()), (-1,))
    reader = LiveTeacher(unshared, [-1], CPU)
    ids, mask = torch.tensor([[5, 6, 7], [0, 9, 10]]), torch.tensor([[1, 1, 1], [0, 1, 1]])
    reader.read(ids, mask, 0)
    for token in (11, 12):
        ids, mask = (
            torch.cat([part, torch.full((2, 1), value)], dim=1)
            for part, value in ((ids, token), (mask, 1))
        )
        found = reader.read(ids, mask, ids.shape[1] - 1)
        for row, first in ((0, 0), (1, 1)):
            exact = plain_pass(plain, ids[row, first:].tolist())[-1][-1]
            torch.testing.assert_close(found[row, 0].float(), exact, atol=2e-2, rtol=2e-2)
