"""A student of prompts reads the prompt's states in cross-attention layers inside GPT-Neo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPTNeoConfig, GPTNeoForCausalLM

from pipeline.errors import InputError
from pipeline.model import LLMModulesForCausalLM, build_student
from tests.pipeline.model.prompt_students import (
    VOCABULARY,
    WIDTH,
    make_prompt_student,
    opened,
    random_inputs,
)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("gpt-neo")
    config = GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_layers=4,
        num_heads=2,
        attention_types=[[["global", "local"], 2]],
        max_position_embeddings=64,
        window_size=8,
        bos_token_id=1,
        eos_token_id=1,
    )
    GPTNeoForCausalLM(config).save_pretrained(folder)
    return folder


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(1, 60),
    states=st.integers(1, 30),
    padding=st.integers(0, 5),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_an_untrained_student_equals_gpt_neo(
    pretrained: Path, tokens: int, states: int, padding: int, seed: int
) -> None:
    inputs, mask = random_inputs(2, tokens, states, seed), torch.ones(2, tokens, dtype=torch.long)
    mask[0, : min(padding, tokens - 1)] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    plain = GPTNeoForCausalLM.from_pretrained(pretrained)
    expected = plain(
        input_ids=inputs["input_ids"], attention_mask=mask, position_ids=positions
    ).logits[mask.bool()]
    for shape in (
        {"cross_every": 1},
        {"cross_every": 2, "gate": "scalar"},
        {"cross_every": 2, "gate": "static"},
    ):
        logits = make_prompt_student(pretrained, **shape)(**inputs, attention_mask=mask).logits[
            mask.bool()
        ]
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(2, 40),
    cut=st.floats(0, 1),
    states=st.integers(2, 20),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_the_whole_prompt_is_read_and_no_later_token(
    pretrained: Path, tokens: int, cut: float, states: int, seed: int
) -> None:
    student, inputs = (
        opened(make_prompt_student(pretrained)),
        random_inputs(1, tokens, states, seed),
    )
    last = int(cut * (tokens - 2))
    before = student(**inputs).logits
    later = inputs | {"input_ids": inputs["input_ids"].clone()}
    later["input_ids"][:, last + 1 :] = (later["input_ids"][:, last + 1 :] + 1) % VOCABULARY
    torch.testing.assert_close(
        student(**later).logits[:, : last + 1], before[:, : last + 1], atol=1e-5, rtol=1e-5
    )
    change = 3 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))
    for place in (0, states - 1):
        other = inputs | {"hidden_states": inputs["hidden_states"].clone()}
        other["hidden_states"][:, place] += change
        assert not torch.allclose(student(**other).logits[:, 0], before[:, 0], atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=2, max_size=3), seed=st.integers(0, 99))
@torch.no_grad()
def test_padded_states_change_no_logit(pretrained: Path, lengths: list[int], seed: int) -> None:
    student = opened(make_prompt_student(pretrained))
    rows = [random_inputs(1, 9, length, seed + row) for row, length in enumerate(lengths)]
    states = torch.full((len(rows), max(lengths), WIDTH), 7.0)
    mask = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    for row, length in enumerate(lengths):
        states[row, :length], mask[row, :length] = rows[row]["hidden_states"][0], 1
    ids = torch.cat([inputs["input_ids"] for inputs in rows])
    together = student(input_ids=ids, hidden_states=states, states_mask=mask).logits
    for logits, inputs in zip(together, rows, strict=True):
        torch.testing.assert_close(logits, student(**inputs).logits[0], atol=1e-4, rtol=1e-4)


@settings(max_examples=15, deadline=None)
@given(pieces=st.lists(st.integers(1, 12), min_size=1, max_size=4), seed=st.integers(0, 99))
@torch.no_grad()
def test_states_are_needed_once_and_pieces_equal_one_pass(
    pretrained: Path, pieces: list[int], seed: int
) -> None:
    student, inputs = (
        opened(make_prompt_student(pretrained, cross_every=1)),
        random_inputs(2, sum(pieces), 7, seed),
    )
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 4:] = 0
    whole = student(**inputs, states_mask=mask).logits
    past, start, logits = None, 0, []
    for length in pieces:
        states = {"hidden_states": inputs["hidden_states"]} if start == 0 else {}
        ids = inputs["input_ids"][:, start : start + length]
        output = student(
            input_ids=ids, **states, states_mask=mask, past_key_values=past, use_cache=True
        )
        past, start = output.past_key_values, start + length
        logits.append(output.logits)
    torch.testing.assert_close(torch.cat(logits, 1), whole, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_generate_takes_the_likeliest_token_of_each_step(pretrained: Path) -> None:
    student, inputs = (
        opened(make_prompt_student(pretrained, layers=(-1, 0))),
        random_inputs(3, 1, 6, 0, layers=2),
    )
    mask = torch.ones(3, 6, dtype=torch.long)
    mask[2, 2:] = 0
    written = student.generate(
        **inputs, states_mask=mask, max_new_tokens=12, do_sample=False, eos_token_id=None
    )
    ids = inputs["input_ids"]
    for _ in range(12):
        logits = student(**inputs | {"input_ids": ids}, states_mask=mask).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    assert written.tolist() == ids.tolist()
    beams = student.generate(
        **inputs, states_mask=mask, max_new_tokens=6, num_beams=3, eos_token_id=None
    )
    assert beams.shape == (3, 7)


@pytest.mark.parametrize("gate", ["channel", "static"])
@pytest.mark.parametrize("head_tokens", [None, [1, 3, 4, 9]])
def test_every_weight_is_trained_and_loaded_as_saved(
    pretrained: Path, head_tokens: list[int] | None, gate: str, tmp_path: Path
) -> None:
    student = make_prompt_student(pretrained, head_tokens=head_tokens, gate=gate).train()
    inputs, labels = random_inputs(2, 8, 5, 0), torch.tensor([[1, 3, 4, 9, 1, 3, 4, 9]] * 2)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    for _ in range(2):  # weights behind a closed gate learn once the gate has opened
        optimizer.zero_grad()
        student(**inputs, labels=labels, loss_only=True).loss.backward()
        optimizer.step()
    untrained = [
        name
        for name, weights in student.named_parameters()
        if weights.grad is None or not weights.grad.any()
    ]
    assert untrained == []
    tied = head_tokens is None
    assert (student.lm_head.weight is student.body.wte.weight) == tied
    student.eval().save_pretrained(tmp_path / "saved")
    loaded = LLMModulesForCausalLM.from_pretrained(tmp_path / "saved").eval()
    assert (loaded.lm_head.weight is loaded.body.wte.weight) == tied
    assert torch.equal(student(**inputs).logits, loaded(**inputs).logits)


@torch.no_grad()
def test_the_control_without_a_teacher_equals_gpt_neo(pretrained: Path) -> None:
    ids = random_inputs(2, 20, 1, 0)["input_ids"]
    expected = GPTNeoForCausalLM.from_pretrained(pretrained)(input_ids=ids).logits
    logits = make_prompt_student(pretrained, "text")(input_ids=ids).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ({"cross_every": 5}, "--cross-every 5: this student has only 4 blocks"),
        ({"gate": "none"}, "--gate none: .*starts closed"),
        (
            {"cross_attention": "bidirectional"},
            "--cross-attention bidirectional: .*supports only causal",
        ),
        ({"layers": (-1, 0, 1)}, r"--layers -1,0,1: .*2 cross-attention layers \(--cross-every\)"),
    ],
)
def test_impossible_bridges_are_refused(
    pretrained: Path, shape: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        make_prompt_student(pretrained, **shape)


@pytest.mark.parametrize(
    ("vocab_size", "longest", "problem"),
    [
        (41, 10, f"has {VOCABULARY} tokens, its tokenizer 41"),
        (40, 65, r"has 64 positions, the longest example 65 tokens; .*--max-answer-tokens"),
    ],
)
def test_too_many_tokens_or_positions_are_refused(
    vocab_size: int, longest: int, problem: str, pretrained: Path
) -> None:
    with pytest.raises(InputError, match=problem):
        build_student(
            str(pretrained),
            vocab_size=vocab_size,
            longest=longest,
            teacher_hidden_size=WIDTH,
            condition="prompt",
            eos_token_id=1,
            pad_token_id=0,
        )


@pytest.mark.parametrize(
    ("states", "problem"),
    [({}, "none were given"), ({"hidden_states": torch.zeros(1, 2, 5)}, "they are 5 wide")],
)
def test_wrong_states_are_refused(
    states: dict[str, torch.Tensor], problem: str, pretrained: Path
) -> None:
    with pytest.raises(ValueError, match=problem):
        make_prompt_student(pretrained)(input_ids=torch.tensor([[1]]), **states)


@torch.no_grad()
def test_tokens_without_an_embedding_of_their_own_share_one() -> None:
    torch.manual_seed(0)
    student = build_student(
        "tiny",
        vocab_size=VOCABULARY,
        longest=10,
        teacher_hidden_size=WIDTH,
        condition="text",
        eos_token_id=1,
        pad_token_id=0,
        head_tokens=[1, 5],
        embedded_tokens=[1, 4, 5, 30],
    ).eval()
    assert student.get_input_embeddings().weight.shape[0] == 5
    first, same, other = (
        student(input_ids=torch.tensor([[1, token, 5]])).logits for token in (7, 39, 30)
    )
    torch.testing.assert_close(first, same)
    assert (first - other)[..., [1, 5]].abs().max() > 1e-4
