"""A student can be built on any decoder: it equals the decoder alone until it is trained."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import transformers as hf
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, PreTrainedModel

from pipeline.errors import InputError
from pipeline.model import LLMModulesForCausalLM, student_body
from tests.pipeline.model.decoders import DECODERS, MORE_DECODERS, save_decoder
from tests.pipeline.model.prompt_students import make_prompt_student, opened, random_inputs


@pytest.fixture(scope="module", params=DECODERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder(request.param, tmp_path_factory.mktemp("decoder"))


def plain(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder).eval()
    return model


@torch.no_grad()
@pytest.mark.parametrize("condition", ["prompt", "text"])
def test_an_untrained_student_equals_the_decoder(folder: Path, condition: str) -> None:
    inputs, mask = random_inputs(2, 20, 7, 0), torch.ones(2, 20, dtype=torch.long)
    mask[0, :6] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    own = {} if "bloom" in type(plain(folder)).__name__.lower() else {"position_ids": positions}
    expected = plain(folder)(input_ids=inputs["input_ids"], attention_mask=mask, **own).logits
    student = make_prompt_student(folder, condition, cross_every=1)
    logits = student(**inputs, attention_mask=mask).logits
    torch.testing.assert_close(logits[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", MORE_DECODERS)
def test_further_families_are_found_and_saved(family: str, tmp_path: Path) -> None:
    folder, inputs = save_decoder(family, tmp_path / "decoder"), random_inputs(2, 12, 7, 0)
    student = make_prompt_student(folder, cross_every=1)
    logits = student(**inputs).logits
    torch.testing.assert_close(logits, plain(folder)(input_ids=inputs["input_ids"]).logits)
    student.save_pretrained(tmp_path / "saved")
    loaded = LLMModulesForCausalLM.from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(loaded(**inputs).logits, logits)


@torch.no_grad()
def test_an_untrained_student_generates_what_the_decoder_does(folder: Path) -> None:
    inputs, mask = random_inputs(2, 9, 7, 0), torch.ones(2, 9, dtype=torch.long)
    options = {
        "attention_mask": mask,
        "max_new_tokens": 12,
        "do_sample": False,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    expected = plain(folder).generate(inputs["input_ids"], **options)
    student = make_prompt_student(folder, cross_every=1)
    assert student.generate(**inputs, **options).tolist() == expected.tolist()


@torch.no_grad()
def test_a_padded_batch_is_generated_as_one_by_one(folder: Path) -> None:
    student = opened(make_prompt_student(folder, cross_every=1))
    rows = [random_inputs(1, length, 5, length) for length in (3, 11, 7)]
    options = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None}
    alone = [
        student.generate(**row, attention_mask=torch.ones_like(row["input_ids"]), **options)[
            0, -10:
        ].tolist()
        for row in rows
    ]
    ids = pad_sequence([row["input_ids"][0] for row in rows], batch_first=True, padding_side="left")
    mask = pad_sequence(
        [torch.ones_like(row["input_ids"][0]) for row in rows],
        batch_first=True,
        padding_side="left",
    )
    together = student.generate(
        ids,
        attention_mask=mask,
        hidden_states=torch.cat([row["hidden_states"] for row in rows]),
        **options,
    )
    assert together[:, -10:].tolist() == alone


@torch.no_grad()
def test_a_student_is_loaded_as_saved_and_copied(folder: Path, tmp_path: Path) -> None:
    student, inputs = opened(make_prompt_student(folder)), random_inputs(2, 8, 5, 0)
    student.save_pretrained(tmp_path)
    loaded = LLMModulesForCausalLM.from_pretrained(tmp_path).eval()
    expected = student(**inputs).logits
    assert torch.equal(loaded(**inputs).logits, expected)
    tied = loaded.lm_head.weight is loaded.get_input_embeddings().weight
    assert tied == bool(student.config.tie_word_embeddings)
    copied = copy.deepcopy(student)
    for weights in copied.bridge.parameters():
        torch.nn.init.normal_(weights)
    assert torch.equal(student(**inputs).logits, expected)
    assert not torch.allclose(copied(**inputs).logits, expected)


def gradients(student: LLMModulesForCausalLM) -> dict[str, torch.Tensor]:
    inputs = random_inputs(2, 8, 5, 0)
    student.train().zero_grad()
    student(**inputs, labels=inputs["input_ids"], loss_only=True).loss.backward()
    return {
        name: weights.grad.clone()
        for name, weights in student.named_parameters()
        if weights.grad is not None
    }


def test_gradients_reach_the_bridge_also_with_activation_checkpointing(folder: Path) -> None:
    student = opened(make_prompt_student(folder, cross_every=1))
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    expected = gradients(student)
    assert len(expected) == len(dict(student.named_parameters()))
    assert all(
        gradient.any() for name, gradient in expected.items() if name.startswith("bridge.layers")
    )
    student.activation_checkpointing_enable({"use_reentrant": False})
    again = gradients(student)
    assert again.keys() == expected.keys()
    for name, gradient in again.items():
        torch.testing.assert_close(gradient, expected[name])


@torch.no_grad()
def test_states_can_replace_the_embeddings_of_any_decoder(folder: Path) -> None:
    student = make_prompt_student(folder, "sequence")
    states = torch.randn(2, 10, student.config.states_width)
    logits = student(hidden_states=states).logits
    later = states.clone()
    later[:, 6:] += 1
    torch.testing.assert_close(student(hidden_states=later).logits[:, :6], logits[:, :6])
    past, pieces = None, []
    for start, end in ((0, 4), (4, 5), (5, 10)):
        output = student(hidden_states=states[:, start:end], past_key_values=past, use_cache=True)
        past, pieces = output.past_key_values, [*pieces, output.logits]
    torch.testing.assert_close(torch.cat(pieces, 1), logits, atol=1e-5, rtol=1e-5)
    assert student.get_input_embeddings() is None


_ROPE = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 4, "pad_token_id": 0}
_HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24}


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (hf.GraniteConfig(**_ROPE, **_HEADS, logits_scaling=3.0), "its logits are not its last"),
        (hf.Gemma2Config(**_ROPE, **_HEADS, head_dim=8), "its logits are not its last"),
        (hf.PhiConfig(**_ROPE, **_HEADS), "its logits are not its last"),
        (hf.MambaConfig(**_ROPE), "is a mamba, and it keeps a state"),
        (
            hf.BertConfig(**_ROPE, num_attention_heads=2, intermediate_size=24),
            "it attends to later tokens",
        ),
        (hf.ViTConfig(), "is a vit, not a causal LM"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_other_models_are_refused(
    config: hf.PreTrainedConfig, problem: str, tmp_path: Path
) -> None:
    if type(config) in hf.MODEL_FOR_CAUSAL_LM_MAPPING:
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    else:
        config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"^student .*{problem}"):
        make_prompt_student(tmp_path, cross_every=1)


def test_positions_limit_those_who_have_them(tmp_path: Path) -> None:
    DECODERS["llama"]().save_pretrained(tmp_path / "llama")
    for condition, advice in (("text", "--max-answer-tokens"), ("sequence", "--max-tokens")):
        with pytest.raises(InputError, match=f"has 64 positions, .* 65 tokens; .*{advice}"):
            student_body(str(tmp_path / "llama"), condition, 65)
    DECODERS["bloom"]().save_pretrained(tmp_path / "bloom")
    assert student_body(str(tmp_path / "bloom"), "text", 10_000).num_hidden_layers == 4
