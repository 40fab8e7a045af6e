"""The student that looks at a prompt's states from within GPT-Neo, by its properties."""

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
from pipeline.shapes import BridgeShape

VOCABULARY, WIDTH = 40, 12


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("gpt-neo")
    config = GPTNeoConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_layers=4, num_heads=2, attention_types=[[["global", "local"], 2]],
        max_position_embeddings=64, window_size=8, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    GPTNeoForCausalLM(config).save_pretrained(folder)
    return folder


def make(
    student: str | Path,
    condition: str = "prompt",
    head_tokens: list[int] | None = None,
    **shape: Any,
) -> LLMModulesForCausalLM:
    torch.manual_seed(0)
    return build_student(
        str(student), vocab_size=VOCABULARY, longest=60, teacher_hidden_size=WIDTH, condition=condition,
        bridge=BridgeShape(cross_heads=4, **shape), bos_token_id=1, eos_token_id=1, pad_token_id=0, head_tokens=head_tokens,
    ).eval()  # fmt: skip


def opened(student: LLMModulesForCausalLM) -> LLMModulesForCausalLM:
    """The same student with its gates ajar."""
    for name, weights in student.named_parameters():
        if ".gate." in name:
            torch.nn.init.normal_(weights, std=0.5)
    return student


def inputs(
    batch: int, tokens: int, states: int, seed: int, layers: int = 1
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "input_ids": torch.randint(0, VOCABULARY, (batch, tokens), generator=generator),
        "hidden_states": torch.randn(batch, states, layers * WIDTH, generator=generator),
    }


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(1, 60),
    states=st.integers(1, 30),
    padding=st.integers(0, 5),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_untrained_it_is_gpt_neo_whatever_it_looks_at(
    pretrained: Path, tokens: int, states: int, padding: int, seed: int
) -> None:
    given_inputs, mask = inputs(2, tokens, states, seed), torch.ones(2, tokens, dtype=torch.long)
    mask[0, : min(padding, tokens - 1)] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    plain = GPTNeoForCausalLM.from_pretrained(pretrained)
    expected = plain(
        input_ids=given_inputs["input_ids"], attention_mask=mask, position_ids=positions
    ).logits
    for shape in ({"cross_every": 1}, {"cross_every": 2, "gate": "scalar"}):
        found = make(pretrained, **shape)(**given_inputs, attention_mask=mask).logits
        torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(2, 40),
    cut=st.floats(0, 1),
    states=st.integers(2, 20),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_it_sees_all_of_the_prompt_and_no_later_token(
    pretrained: Path, tokens: int, cut: float, states: int, seed: int
) -> None:
    student, given_inputs, t = (
        opened(make(pretrained)),
        inputs(1, tokens, states, seed),
        int(cut * (tokens - 2)),
    )
    before = student(**given_inputs).logits
    later = given_inputs | {"input_ids": given_inputs["input_ids"].clone()}
    later["input_ids"][:, t + 1 :] = (later["input_ids"][:, t + 1 :] + 1) % VOCABULARY
    torch.testing.assert_close(
        student(**later).logits[:, : t + 1], before[:, : t + 1], atol=1e-5, rtol=1e-5
    )
    for place in (0, states - 1):
        other = given_inputs | {"hidden_states": given_inputs["hidden_states"].clone()}
        other["hidden_states"][:, place] += 3 * torch.randn(
            WIDTH, generator=torch.Generator().manual_seed(seed)
        )
        assert not torch.allclose(student(**other).logits[:, 0], before[:, 0], atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=2, max_size=3), seed=st.integers(0, 99))
@torch.no_grad()
def test_padding_of_the_states_changes_nothing(
    pretrained: Path, lengths: list[int], seed: int
) -> None:
    student, rows = (
        opened(make(pretrained)),
        [inputs(1, 9, length, seed + number) for number, length in enumerate(lengths)],
    )
    states, mask = (
        torch.full((len(rows), max(lengths), WIDTH), 7.0),
        torch.zeros(len(rows), max(lengths), dtype=torch.long),
    )
    for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        states[number, :length], mask[number, :length] = row["hidden_states"][0], 1
    together = student(
        input_ids=torch.cat([row["input_ids"] for row in rows]),
        hidden_states=states,
        states_mask=mask,
    ).logits
    for number, row in enumerate(rows):
        torch.testing.assert_close(together[number], student(**row).logits[0], atol=1e-4, rtol=1e-4)


@settings(max_examples=15, deadline=None)
@given(pieces=st.lists(st.integers(1, 12), min_size=1, max_size=4), seed=st.integers(0, 99))
@torch.no_grad()
def test_the_states_are_needed_once_and_piece_by_piece_it_reads_the_same(
    pretrained: Path, pieces: list[int], seed: int
) -> None:
    student, given_inputs = opened(make(pretrained, cross_every=1)), inputs(2, sum(pieces), 7, seed)
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 4:] = 0
    whole = student(**given_inputs, states_mask=mask).logits
    past, start, read = None, 0, []
    for length in pieces:
        states = {"hidden_states": given_inputs["hidden_states"]} if start == 0 else {}
        part = given_inputs["input_ids"][:, start : start + length]
        output = student(
            input_ids=part, **states, states_mask=mask, past_key_values=past, use_cache=True
        )
        past, start = output.past_key_values, start + length
        read.append(output.logits)
    torch.testing.assert_close(torch.cat(read, 1), whole, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_generate_writes_what_step_by_step_the_likeliest_tokens_are(pretrained: Path) -> None:
    student, given_inputs = opened(make(pretrained, layers=(-1, 0))), inputs(3, 1, 6, 0, layers=2)
    mask = torch.ones(3, 6, dtype=torch.long)
    mask[2, 2:] = 0
    written = student.generate(
        **given_inputs, states_mask=mask, max_new_tokens=12, do_sample=False, eos_token_id=None
    )
    ids = given_inputs["input_ids"]
    for _ in range(12):
        logits = student(
            input_ids=ids, hidden_states=given_inputs["hidden_states"], states_mask=mask
        ).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    assert written.tolist() == ids.tolist()
    beams = student.generate(
        **given_inputs, states_mask=mask, max_new_tokens=6, num_beams=3, eos_token_id=None
    )
    assert beams.shape == (3, 7)


@pytest.mark.parametrize("head_tokens", [None, [1, 3, 4, 9]])
def test_every_weight_is_trained_and_comes_back(
    pretrained: Path, head_tokens: list[int] | None, tmp_path: Path
) -> None:
    student, given_inputs = make(pretrained, head_tokens=head_tokens).train(), inputs(2, 8, 5, 0)
    labels = torch.tensor([[1, 3, 4, 9, 1, 3, 4, 9]] * 2)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    for _ in range(2):  # what lies behind a gate that is closed learns once the gate has moved
        optimizer.zero_grad()
        student(**given_inputs, labels=labels, loss_only=True).loss.backward()
        optimizer.step()
    untouched = [
        n
        for n, weights in student.named_parameters()
        if weights.grad is None or not weights.grad.abs().sum()
    ]
    assert not untouched
    assert (student.lm_head.weight is student.body.wte.weight) == (head_tokens is None)
    student.eval().save_pretrained(tmp_path / "saved")
    again = LLMModulesForCausalLM.from_pretrained(tmp_path / "saved").eval()
    assert (again.lm_head.weight is again.body.wte.weight) == (head_tokens is None)
    assert torch.equal(student(**given_inputs).logits, again(**given_inputs).logits)


@torch.no_grad()
def test_the_control_without_a_teacher_is_gpt_neo_too(pretrained: Path) -> None:
    ids = inputs(2, 20, 1, 0)["input_ids"]
    plain = GPTNeoForCausalLM.from_pretrained(pretrained)
    torch.testing.assert_close(
        make(pretrained, "text")(input_ids=ids).logits,
        plain(input_ids=ids).logits,
        atol=1e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    "shape, said",
    [
        ({"cross_every": 5}, "--cross-every 5: this GPT-Neo has only 4 blocks"),
        ({"gate": "none"}, "--gate none: .*starts closed"),
        ({"cross_attention": "bidirectional"}, "--cross-attention bidirectional: .*only one kind"),
        ({"layers": (-1, 0, 1)}, r"--layers -1,0,1: .*2 cross-attention layers \(--cross-every\)"),
    ],
)
def test_what_cannot_be_built_is_said_so(
    pretrained: Path, shape: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        make(pretrained, **shape)


def test_a_tokenizer_of_more_tokens_or_an_answer_of_too_many_is_said_so(pretrained: Path) -> None:
    shape: dict[str, Any] = {
        "teacher_hidden_size": WIDTH,
        "condition": "prompt",
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    with pytest.raises(InputError, match=f"has {VOCABULARY} tokens, its tokenizer 41"):
        build_student(str(pretrained), vocab_size=41, longest=10, **shape)
    with pytest.raises(
        InputError, match=r"has 64 positions, the longest example 65 tokens; .*--max-answer-tokens"
    ):
        build_student(str(pretrained), vocab_size=40, longest=65, **shape)


def test_without_states_before_its_first_token_it_says_so(pretrained: Path) -> None:
    with pytest.raises(ValueError, match="none were given"):
        make(pretrained)(input_ids=torch.tensor([[1]]))
    with pytest.raises(ValueError, match="they are 5 wide"):
        make(pretrained)(input_ids=torch.tensor([[1]]), hidden_states=torch.zeros(1, 2, 5))
