"""The chunked loss and its gradients equal plain cross-entropy, also of a head over few tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, linear

from pipeline.model import LLMModulesForCausalLM
from pipeline.model.loss import next_token_loss
from tests.pipeline.model.students import VOCABULARY, make_student, random_inputs


@settings(max_examples=20, deadline=None)
@given(tokens=st.integers(2, 60), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_loss_and_gradient_equal_plain_cross_entropy(
    student: LLMModulesForCausalLM, tokens: int, share: float, seed: int
) -> None:
    inputs = random_inputs(2, tokens, seed)
    labels = torch.where(torch.rand(2, tokens) < share, inputs["input_ids"], -100)
    labels[:, -1] = inputs["input_ids"][:, -1]
    output = student(**inputs, labels=labels)
    plain = cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(output.loss, plain)
    head = student.lm_head.weight
    (gradient,) = torch.autograd.grad(output.loss, head, retain_graph=True)
    (expected,) = torch.autograd.grad(plain, head)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4)


def test_the_number_of_chunks_does_not_change_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    student, inputs = make_student(), random_inputs(2, 50, 3)
    labels = inputs["input_ids"]
    whole = student(**inputs, labels=labels).loss
    monkeypatch.setattr("pipeline.model.loss._MAX_LOGITS", 7 * VOCABULARY)
    torch.testing.assert_close(student(**inputs, labels=labels).loss, whole)


def test_gradients_under_mixed_precision_equal_those_of_plain_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden_BTS = torch.randn(2, 30, 16, generator=generator, requires_grad=True)
    head_VS = torch.randn(VOCABULARY, 16, generator=generator, requires_grad=True)
    labels_BT = torch.randint(0, VOCABULARY, (2, 30), generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        total, count = next_token_loss(hidden_BTS, head_VS, labels_BT)
        logits = linear(hidden_BTS[:, :-1], head_VS).float()
        plain = cross_entropy(logits.flatten(0, 1), labels_BT[:, 1:].flatten(), reduction="sum")
    assert count == 58
    torch.testing.assert_close(total, plain)
    for gradient, expected in zip(
        torch.autograd.grad(3 * total, [hidden_BTS, head_VS]),
        torch.autograd.grad(3 * plain, [hidden_BTS, head_VS]),
        strict=True,
    ):
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, expected, atol=0.05, rtol=0.02)


@pytest.fixture
def tokens() -> list[int]:
    return [0, 1, 7, 8, 20, 49]


def test_a_head_over_some_tokens_predicts_as_a_whole_head_without_the_others(
    tokens: list[int],
) -> None:
    student, whole, inputs = (
        make_student(head_tokens=tokens),
        make_student(),
        random_inputs(2, 30, 5),
    )
    head = ("lm_head.weight", "head_tokens")
    body = {name: values for name, values in student.state_dict().items() if name not in head}
    whole.load_state_dict(body, strict=False)
    with torch.no_grad():
        whole.lm_head.weight[tokens] = student.lm_head.weight
    chosen = torch.randint(0, len(tokens), (2, 30), generator=torch.Generator().manual_seed(1))
    labels = torch.tensor(tokens)[chosen]
    labels[:, ::3] = -100
    logits_BTV, whole_BTV = student(**inputs).logits, whole(**inputs).logits
    assert logits_BTV.shape == whole_BTV.shape
    torch.testing.assert_close(logits_BTV[..., tokens], whole_BTV[..., tokens])
    others = [token for token in range(VOCABULARY) if token not in tokens]
    assert torch.isneginf(logits_BTV[..., others]).all()
    plain = cross_entropy(logits_BTV[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(student(**inputs, labels=labels).loss, plain)


def test_labels_outside_the_heads_tokens_are_refused(tokens: list[int]) -> None:
    student, inputs = make_student(head_tokens=tokens), random_inputs(2, 30, 5)
    with pytest.raises((IndexError, RuntimeError)):
        student(**inputs, labels=torch.full((2, 30), 9))


def test_a_head_over_some_tokens_is_loaded_as_saved(tokens: list[int], tmp_path: Path) -> None:
    student, inputs = make_student(head_tokens=tokens), random_inputs(2, 30, 5)
    student.save_pretrained(tmp_path)
    loaded = LLMModulesForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(**inputs).logits, student(**inputs).logits)
