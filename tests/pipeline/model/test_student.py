"""A student is causal, ignores padding, and reads the same with a key-value cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.errors import InputError
from pipeline.model import LLMModulesConfig, LLMModulesForCausalLM
from tests.pipeline.model.students import WIDTH, make_student, random_inputs


@settings(max_examples=25, deadline=None)
@given(tokens=st.integers(2, 300), cut=st.floats(0, 1), seed=st.integers(0, 99))
@torch.no_grad()
def test_no_logit_depends_on_later_tokens(
    student: LLMModulesForCausalLM, tokens: int, cut: float, seed: int
) -> None:
    inputs, last = random_inputs(1, tokens, seed), int(cut * (tokens - 2))
    other = random_inputs(1, tokens, seed + 1000)
    changed = {
        name: torch.cat([values[:, : last + 1], other[name][:, last + 1 :]], 1)
        for name, values in inputs.items()
    }
    before, after = student(**inputs).logits, student(**changed).logits
    torch.testing.assert_close(before[:, : last + 1], after[:, : last + 1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before[:, last + 1 :], after[:, last + 1 :], atol=1e-4)


@torch.no_grad()
def test_bidirectional_attention_leaks_and_is_labelled(
    leaking_student: LLMModulesForCausalLM,
) -> None:
    inputs = random_inputs(1, 40, 0)
    changed = {**inputs, "hidden_states": inputs["hidden_states"].clone()}
    changed["hidden_states"][:, 30:] = torch.randn(1, 10, WIDTH)
    before, after = leaking_student(**inputs).logits, leaking_student(**changed).logits
    assert not torch.allclose(before[:, :30], after[:, :30], atol=1e-4)
    assert leaking_student.config.leaks


def test_a_causal_student_is_not_labelled_as_leaking(student: LLMModulesForCausalLM) -> None:
    assert not student.config.leaks


def require_padding_ignored(
    student: LLMModulesForCausalLM, lengths: list[int], left: bool, seed: int
) -> None:
    """Compare the logits of a padded batch with those of its examples alone."""
    longest = max(lengths)
    rows = [random_inputs(1, length, seed + index) for index, length in enumerate(lengths)]
    batch = {
        name: torch.zeros(len(rows), longest, *values.shape[2:], dtype=values.dtype)
        for name, values in rows[0].items()
    }
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    places = [slice(longest - length, None) if left else slice(0, length) for length in lengths]
    for index, place in enumerate(places):
        mask[index, place] = 1
        for name, values in rows[index].items():
            batch[name][index, place] = values[0]
    logits = student(**batch, attention_mask=mask).logits
    assert logits.isfinite().all()
    for index, place in enumerate(places):
        alone = student(**rows[index]).logits[0]
        torch.testing.assert_close(logits[index, place], alone, atol=1e-4, rtol=1e-4)


LENGTHS = st.lists(st.integers(1, 60), min_size=2, max_size=4)


@settings(max_examples=20, deadline=None)
@given(lengths=LENGTHS, left=st.booleans(), seed=st.integers(0, 99))
@torch.no_grad()
def test_padding_changes_no_logit(
    student: LLMModulesForCausalLM, lengths: list[int], left: bool, seed: int
) -> None:
    require_padding_ignored(student, lengths, left, seed)


@settings(max_examples=20, deadline=None)
@given(lengths=LENGTHS, left=st.booleans(), seed=st.integers(0, 99))
@torch.no_grad()
def test_padding_changes_no_logit_of_a_leaking_student(
    leaking_student: LLMModulesForCausalLM, lengths: list[int], left: bool, seed: int
) -> None:
    require_padding_ignored(leaking_student, lengths, left, seed)


@settings(max_examples=10, deadline=None)
@given(
    pieces=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    padding=st.integers(0, 3),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_pieces_with_a_key_value_cache_equal_one_pass(
    student: LLMModulesForCausalLM, pieces: list[int], padding: int, seed: int
) -> None:
    tokens = sum(pieces) + padding
    inputs = random_inputs(2, tokens, seed)
    mask = torch.ones(2, tokens, dtype=torch.long)
    mask[0, :padding] = 0
    whole = student(**inputs, attention_mask=mask).logits
    past, start, logits = None, 0, []
    for length in [pieces[0] + padding, *pieces[1:]]:
        end = start + length
        output = student(
            **{name: values[:, start:end] for name, values in inputs.items()},
            attention_mask=mask[:, :end],
            past_key_values=past,
            use_cache=True,
        )
        past, start = output.past_key_values, end
        logits.append(output.logits)
    torch.testing.assert_close(
        torch.cat(logits, 1)[:, padding:], whole[:, padding:], atol=1e-4, rtol=1e-4
    )


def test_a_saved_student_is_loaded_by_transformers(
    student: LLMModulesForCausalLM, tmp_path: Path
) -> None:
    student.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), LLMModulesConfig)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, LLMModulesForCausalLM)
    inputs = random_inputs(1, 9, 0)
    assert torch.equal(loaded.eval()(**inputs).logits, student(**inputs).logits)


def test_a_student_of_states_has_no_embeddings() -> None:
    names = [name for name, _ in make_student().named_parameters()]
    assert not [name for name in names if "wte" in name or "wpe" in name]


@pytest.mark.parametrize("condition", ["sequence", "none"])
def test_every_weight_gets_a_gradient(condition: str) -> None:
    student, inputs = make_student(condition=condition), random_inputs(2, 9, 0)
    student(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert [name for name, weight in student.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize(
    ("condition", "inputs", "problem"),
    [
        ("sequence", {"input_ids": torch.zeros(1, 3, dtype=torch.long)}, "none were given"),
        ("sequence", {"hidden_states": torch.zeros(1, 3, 5)}, "5 wide"),
        ("none", {"hidden_states": torch.zeros(1, 3, WIDTH)}, "reads input_ids"),
    ],
)
def test_wrong_inputs_are_refused(
    condition: str, inputs: dict[str, torch.Tensor], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        make_student(condition=condition)(**inputs)


@pytest.mark.parametrize("name", ["huge", "./nowhere", "/nowhere/at/all"])
def test_an_unknown_student_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="neither a size"):
        make_student(name)
