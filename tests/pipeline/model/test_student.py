"""The student by its properties: what it may see, what it must not, and that every fast path equals
the plain one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, linear
from transformers import AutoConfig, AutoModelForCausalLM, GPTNeoConfig, GPTNeoModel

from pipeline.errors import InputError
from pipeline.model import LLMModulesConfig, LLMModulesForCausalLM, build_student
from pipeline.model.loss import next_token_loss
from pipeline.shapes import BridgeShape

VOCABULARY, WIDTH = 50, 12
HEAD = ("lm_head.weight", "head_tokens")


def make(
    student: str = "tiny",
    *,
    longest: int = 400,
    condition: str = "sequence",
    cross_attention: str = "causal",
    head_tokens: list[int] | None = None,
    **shape: Any,
) -> LLMModulesForCausalLM:
    torch.manual_seed(0)
    model = build_student(
        student, vocab_size=VOCABULARY, longest=longest, teacher_hidden_size=WIDTH, condition=condition,
        bridge=BridgeShape(cross_attention=cross_attention, **shape), eos_token_id=1, pad_token_id=0, head_tokens=head_tokens,
    )  # fmt: skip
    return model.eval()


def inputs(batch: int, tokens: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": torch.randn(batch, tokens, WIDTH, generator=generator),
        "input_ids": torch.randint(0, VOCABULARY, (batch, tokens), generator=generator),
    }


STUDENTS = {condition: make(condition=condition) for condition in ("sequence", "none")}
LEAKING = make(cross_attention="bidirectional")
CONDITIONS = pytest.mark.parametrize("condition", ["sequence", "none"])


@CONDITIONS
@settings(max_examples=25, deadline=None)
@given(tokens=st.integers(2, 300), cut=st.floats(0, 1), seed=st.integers(0, 99))
@torch.no_grad()
def test_changing_what_comes_after_t_changes_no_logit_at_or_before_t(
    condition: str, tokens: int, cut: float, seed: int
) -> None:
    student, given_inputs, t = STUDENTS[condition], inputs(1, tokens, seed), int(cut * (tokens - 2))
    other = inputs(1, tokens, seed + 1000)
    changed = {
        name: torch.cat([value[:, : t + 1], other[name][:, t + 1 :]], 1)
        for name, value in given_inputs.items()
    }
    before, after = student(**given_inputs).logits, student(**changed).logits
    torch.testing.assert_close(before[:, : t + 1], after[:, : t + 1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before[:, t + 1 :], after[:, t + 1 :], atol=1e-4)


@torch.no_grad()
def test_the_papers_bidirectional_attention_leaks_and_says_so() -> None:
    given_inputs = inputs(1, 40, 0)
    changed = {**given_inputs, "hidden_states": given_inputs["hidden_states"].clone()}
    changed["hidden_states"][:, 30:] = torch.randn(1, 10, WIDTH)
    before, after = LEAKING(**given_inputs).logits, LEAKING(**changed).logits
    assert not torch.allclose(before[:, :30], after[:, :30], atol=1e-4)
    assert LEAKING.config.leaks
    assert not STUDENTS["sequence"].config.leaks


@pytest.mark.parametrize(
    "student", [*STUDENTS.values(), LEAKING], ids=["sequence", "none", "bidirectional"]
)
@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=2, max_size=4),
    left=st.booleans(),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_padding_changes_nothing(
    student: LLMModulesForCausalLM, lengths: list[int], left: bool, seed: int
) -> None:
    longest = max(lengths)
    rows = [inputs(1, length, seed + index) for index, length in enumerate(lengths)]
    batch = {
        name: torch.zeros(len(rows), longest, *rows[0][name].shape[2:], dtype=rows[0][name].dtype)
        for name in rows[0]
    }
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    places = [slice(longest - length, None) if left else slice(0, length) for length in lengths]
    for index, place in enumerate(places):
        mask[index, place] = 1
        for name, value in rows[index].items():
            batch[name][index, place] = value[0]
    logits = student(**batch, attention_mask=mask).logits
    assert logits.isfinite().all()
    for index, place in enumerate(places):
        torch.testing.assert_close(
            logits[index, place], student(**rows[index]).logits[0], atol=1e-4, rtol=1e-4
        )


@CONDITIONS
@settings(max_examples=10, deadline=None)
@given(
    pieces=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    padding=st.integers(0, 3),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_reading_piece_by_piece_with_a_cache_equals_reading_at_once(
    condition: str, pieces: list[int], padding: int, seed: int
) -> None:
    student, tokens = STUDENTS[condition], sum(pieces) + padding
    given_inputs = inputs(2, tokens, seed)
    mask = torch.ones(2, tokens, dtype=torch.long)
    mask[0, :padding] = 0
    whole = student(**given_inputs, attention_mask=mask).logits
    past, start, read = None, 0, []
    for length in [pieces[0] + padding, *pieces[1:]]:
        part = {name: value[:, start : start + length] for name, value in given_inputs.items()}
        output = student(
            **part, attention_mask=mask[:, : start + length], past_key_values=past, use_cache=True
        )
        past, start = output.past_key_values, start + length
        read.append(output.logits)
    torch.testing.assert_close(
        torch.cat(read, 1)[:, padding:], whole[:, padding:], atol=1e-4, rtol=1e-4
    )


@CONDITIONS
@settings(max_examples=20, deadline=None)
@given(tokens=st.integers(2, 60), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_the_chunked_loss_and_its_gradient_equal_the_plain_ones(
    condition: str, tokens: int, share: float, seed: int
) -> None:
    student, given_inputs = STUDENTS[condition], inputs(2, tokens, seed)
    labels = torch.where(torch.rand(2, tokens) < share, given_inputs["input_ids"], -100)
    labels[:, -1] = given_inputs["input_ids"][:, -1]
    student.zero_grad()
    output = student(**given_inputs, labels=labels)
    plain = cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(output.loss, plain)
    chunked_gradient = torch.autograd.grad(output.loss, student.lm_head.weight, retain_graph=True)[
        0
    ]
    torch.testing.assert_close(
        chunked_gradient,
        torch.autograd.grad(plain, student.lm_head.weight)[0],
        atol=1e-6,
        rtol=1e-4,
    )


def test_a_loss_in_many_chunks_equals_one_in_a_single_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student, given_inputs = STUDENTS["sequence"], inputs(2, 50, 3)
    whole = student(**given_inputs, labels=given_inputs["input_ids"]).loss
    monkeypatch.setattr("pipeline.model.loss._MAX_LOGITS", 7 * VOCABULARY)
    torch.testing.assert_close(
        student(**given_inputs, labels=given_inputs["input_ids"]).loss, whole
    )


SHAPES: list[dict[str, Any]] = [
    {"layers": (3, -1), "cross_heads": 4},
    {"layers": (5, 3, 5), "cross_layers": 3, "adapter_size": 9},
    {"cross_layers": 0},
    {"cross_layers": 1, "gate": "scalar"},
    {"gate": "none"},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_bridge_is_causal_trains_all_its_weights_and_comes_back(
    shape: dict[str, Any], tmp_path: Path
) -> None:
    student = make(**shape)
    layers = len(student.config.teacher_layers)
    generator = torch.Generator().manual_seed(0)
    hidden_BTD = torch.randn(1, 20, layers * WIDTH, generator=generator)
    changed_BTD = torch.cat(
        [hidden_BTD[:, :12], torch.randn(1, 8, layers * WIDTH, generator=generator)], dim=1
    )
    before, after = (
        student(hidden_states=hidden_BTD).logits,
        student(hidden_states=changed_BTD).logits,
    )
    torch.testing.assert_close(before[:, :12], after[:, :12], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before[:, 12:], after[:, 12:], atol=1e-4)
    for layer in range(layers):  # each of them is read
        other_BTD = hidden_BTD.clone()
        other_BTD[..., layer * WIDTH : (layer + 1) * WIDTH] = torch.randn(
            1, 20, WIDTH, generator=generator
        )
        assert not torch.allclose(student(hidden_states=other_BTD).logits, before, atol=1e-5)
    student(hidden_states=hidden_BTD, labels=torch.randint(0, VOCABULARY, (1, 20))).loss.backward()
    assert [
        name
        for name, weights in student.named_parameters()
        if weights.grad is None or not weights.grad.any()
    ] == []
    student.save_pretrained(tmp_path)
    loaded = LLMModulesForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(hidden_states=hidden_BTD).logits, before)


def test_the_own_path_reads_the_layer_that_the_last_cross_attention_reads() -> None:
    student = make(layers=(3, -1))
    hidden_BTD = torch.randn(1, 6, 2 * WIDTH)
    bridge = student.bridge
    assert bridge is not None
    for layer in bridge.layers:  # silence cross-attention: what is left is the own path
        torch.nn.init.constant_(layer.gate.bias, -1e4)
    with torch.no_grad():
        path = bridge.pre_proj[1](bridge.norm[1](hidden_BTD[..., WIDTH:]))
        torch.testing.assert_close(bridge(hidden_BTD), 4 * bridge.ffn(path) + bridge.proj(path))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"layers": (1, 2, 3)}, "one for each of the 2 cross-attention layers"),
        ({"cross_heads": 7}, "--cross-heads 7: do not divide"),
    ],
)
def test_a_bridge_that_cannot_be_built_is_said_so(shape: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make(**shape)


def test_a_head_over_some_tokens_predicts_as_the_whole_one_that_knows_no_others(
    tmp_path: Path,
) -> None:
    tokens = [0, 1, 7, 8, 20, 49]
    student, whole, given_inputs = make(head_tokens=tokens), make(), inputs(2, 30, 5)
    whole.load_state_dict(
        {name: value for name, value in student.state_dict().items() if name not in HEAD},
        strict=False,
    )
    with torch.no_grad():
        whole.lm_head.weight[tokens] = student.lm_head.weight
    labels = torch.tensor(tokens)[
        torch.randint(0, len(tokens), (2, 30), generator=torch.Generator().manual_seed(1))
    ]
    labels[:, ::3] = -100
    logits_BTV, plain_BTV = student(**given_inputs).logits, whole(**given_inputs).logits
    assert logits_BTV.shape == plain_BTV.shape
    torch.testing.assert_close(logits_BTV[..., tokens], plain_BTV[..., tokens])
    assert torch.isneginf(
        logits_BTV[..., [token for token in range(VOCABULARY) if token not in tokens]]
    ).all()
    plain = cross_entropy(logits_BTV[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(student(**given_inputs, labels=labels).loss, plain)
    with pytest.raises((IndexError, RuntimeError)):
        student(
            **given_inputs, labels=torch.full((2, 30), 9)
        )  # a token that the head does not span
    student.save_pretrained(tmp_path)
    loaded = LLMModulesForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(**given_inputs).logits, logits_BTV)


@CONDITIONS
def test_saved_and_loaded_it_is_the_same(condition: str, tmp_path: Path) -> None:
    student = STUDENTS[condition]
    student.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), LLMModulesConfig)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, LLMModulesForCausalLM)
    given_inputs = inputs(1, 9, 0)
    assert torch.equal(loaded.eval()(**given_inputs).logits, student(**given_inputs).logits)


def test_unused_embeddings_do_not_exist() -> None:
    names = [name for name, _ in STUDENTS["sequence"].named_parameters()]
    assert not [name for name in names if "wte" in name or "wpe" in name]


@pytest.mark.parametrize("condition", ["sequence", "none"])
def test_every_weight_is_trained(condition: str) -> None:
    student, given_inputs = make(condition=condition), inputs(2, 9, 0)
    student(**given_inputs, labels=given_inputs["input_ids"]).loss.backward()
    assert [name for name, weight in student.named_parameters() if weight.grad is None] == []


def test_the_wrong_input_is_said_so() -> None:
    with pytest.raises(ValueError, match="none were given"):
        STUDENTS["sequence"](input_ids=torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="5 wide"):
        STUDENTS["sequence"](hidden_states=torch.zeros(1, 3, 5))
    with pytest.raises(ValueError, match="reads input_ids"):
        STUDENTS["none"](hidden_states=torch.zeros(1, 3, WIDTH))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt-neo")
    config = GPTNeoConfig(
        vocab_size=60,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=32,
    )
    GPTNeoModel(config).save_pretrained(folder)
    return folder


@CONDITIONS
def test_pretrained_gpt_neo_weights_are_loaded(condition: str, pretrained: Path) -> None:
    weights = load_file(pretrained / "model.safetensors")
    student = make(str(pretrained), longest=32, condition=condition)
    held = student.body.state_dict()
    kept = [
        name
        for name in weights
        if not name.startswith("wte.") and (condition == "none" or not name.startswith("wpe."))
    ]
    assert kept
    assert all(torch.equal(held[name], weights[name]) for name in kept)


@torch.no_grad()
def test_examples_longer_than_gpt_neos_positions_are_read_whole(pretrained: Path) -> None:
    student, given_inputs = make(str(pretrained), longest=70), inputs(1, 70, 0)
    changed = {**given_inputs, "hidden_states": given_inputs["hidden_states"].clone()}
    changed["hidden_states"][:, 1] += torch.randn(WIDTH)
    assert not torch.allclose(
        student(**given_inputs).logits[:, 69], student(**changed).logits[:, 69], atol=1e-6
    )
    alone = make(str(pretrained), longest=70, condition="none")
    learned = AutoModelForCausalLM.from_pretrained(pretrained).transformer.wpe.weight
    assert torch.equal(alone.body.wpe.weight[:32], learned)
    assert (
        alone.body.wpe.weight.shape[0] >= 70 and alone.body.wpe.weight[32:].std() > 0
    )  # those beyond are new
    assert alone(input_ids=torch.zeros(1, 70, dtype=torch.long)).logits.shape[1] == 70


@pytest.mark.parametrize("name", ["huge", "./nowhere", "/nowhere/at/all"])
def test_an_unknown_student_is_said_so(name: str) -> None:
    with pytest.raises(InputError, match="neither a size"):
        make(name)


def test_the_loss_under_mixed_precision_has_the_gradients_of_the_plain_one() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden_BTS = torch.randn(2, 30, 16, generator=generator, requires_grad=True)
    head_VS = torch.randn(VOCABULARY, 16, generator=generator, requires_grad=True)
    labels_BT = torch.randint(0, VOCABULARY, (2, 30), generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        total, count = next_token_loss(hidden_BTS, head_VS, labels_BT)
        plain = cross_entropy(
            linear(hidden_BTS[:, :-1], head_VS).float().flatten(0, 1),
            labels_BT[:, 1:].flatten(),
            reduction="sum",
        )
    assert count == 58
    torch.testing.assert_close(total, plain)
    for found, wanted in zip(
        torch.autograd.grad(3 * total, [hidden_BTS, head_VS]),
        torch.autograd.grad(3 * plain, [hidden_BTS, head_VS]),
        strict=True,
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, atol=0.05, rtol=0.02)
