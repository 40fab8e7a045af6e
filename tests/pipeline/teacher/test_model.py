"""Hidden states and predictions of a teacher equal those of transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    DynamicCache,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2Model,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Model,
)

from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.errors import InputError
from pipeline.teacher.load import load_teacher
from pipeline.teacher.model import Teacher
from pipeline.teacher.source import find_teacher

SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def body(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if family == "gpt2":
        return GPT2Model(GPT2Config(vocab_size=40, n_embd=16, n_layer=3, n_head=2)).eval()
    kinds = {
        "qwen2": (Qwen2Model, Qwen2Config),
        "llama": (LlamaModel, LlamaConfig),
        "mistral": (MistralModel, MistralConfig),
    }
    model, config = kinds[family]
    return model(config(**SMALL)).eval()


@pytest.mark.parametrize("family", ["qwen2", "llama", "mistral", "gpt2"])
@torch.no_grad()
def test_layers_match_transformers(family: str) -> None:
    model, ids = body(family), torch.randint(0, 40, (2, 9))
    expected = model(input_ids=ids, output_hidden_states=True).hidden_states
    states_of = Teacher(model, (-1, 0, 2, -3)).hidden_states(ids)
    assert list(states_of) == [-1, 0, 2, -3]
    for layer, states in states_of.items():
        torch.testing.assert_close(states, expected[layer])


@pytest.mark.parametrize("family", ["qwen2", "llama", "mistral", "gpt2"])
@pytest.mark.parametrize(
    ("layers", "run"), [((0,), 1), ((1,), 1), ((0, 2), 2), ((-2, 1), 2), ((3,), 3)]
)
@torch.no_grad()
def test_no_block_above_the_last_selected_layer_runs(
    family: str, layers: tuple[int, ...], run: int
) -> None:
    model, ids = body(family), torch.randint(0, 40, (2, 9))
    expected = model(input_ids=ids, output_hidden_states=True).hidden_states
    ran = []
    blocks = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    for number, block in enumerate(blocks, 1):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    teacher = Teacher(model, layers)
    ran.clear()
    for layer, states in teacher.hidden_states(ids).items():
        torch.testing.assert_close(states, expected[layer])
    assert ran == list(range(1, run + 1))
    assert [teacher.is_last(layer) for layer in layers] == [layer in (3, -1) for layer in layers]
    past = DynamicCache()
    teacher.hidden_states(ids[:, :4], torch.ones(2, 4, dtype=torch.long), past)
    for layer, states in teacher.hidden_states(
        ids[:, 4:], torch.ones(2, 9, dtype=torch.long), past
    ).items():
        torch.testing.assert_close(states, expected[layer][:, 4:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["qwen2", "llama", "mistral", "gpt2"])
@pytest.mark.parametrize(("layer", "run"), [(0, 1), (1, 1), (2, 2), (-1, 3)])
@torch.no_grad()
def test_blocks_above_the_layers_of_a_call_do_not_run(family: str, layer: int, run: int) -> None:
    model, ids = body(family), torch.randint(0, 40, (2, 9))
    teacher, ran = Teacher(model, (-1, 0, 1, 2)), []
    blocks = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    for number, block in enumerate(blocks, 1):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    whole = teacher.hidden_states(ids)[layer]
    ran.clear()
    alone = teacher.hidden_states(ids, layers=[layer])
    assert [*alone] == [layer] and ran == list(range(1, run + 1))
    assert torch.equal(alone[layer], whole)
    past = DynamicCache()
    for start, stop in ((0, 4), (4, 9)):
        mask = torch.ones(2, stop, dtype=torch.long)
        part = teacher.hidden_states(ids[:, start:stop], mask, past, [layer])[layer]
        torch.testing.assert_close(part, whole[:, start:stop], rtol=1e-4, atol=1e-4)
    assert torch.equal(teacher.hidden_states(ids)[-1], teacher.hidden_states(ids, layers=[-1])[-1])


@pytest.mark.parametrize("family", ["qwen2", "llama", "mistral", "gpt2"])
def test_padding_and_key_value_cache_do_not_change_states(family: str) -> None:
    teacher, ids = Teacher(body(family), (-1, 0)), torch.randint(0, 40, (1, 9))
    alone = teacher.hidden_states(ids)
    for padded, mask, name in (
        (torch.cat([ids, ids[:, :3]], 1), [1] * 9 + [0] * 3, slice(0, 9)),
        (torch.cat([ids[:, :3], ids], 1), [0] * 3 + [1] * 9, slice(3, 12)),
    ):
        states = teacher.hidden_states(padded, torch.tensor([mask]))
        for layer in alone:
            torch.testing.assert_close(states[layer][:, name], alone[layer], atol=1e-5, rtol=1e-5)
    past, parts = DynamicCache(), []
    for start, stop in ((0, 4), (4, 5), (5, 9)):
        parts.append(
            teacher.hidden_states(ids[:, start:stop], torch.ones(1, stop, dtype=torch.long), past)[
                -1
            ]
        )
    torch.testing.assert_close(torch.cat(parts, 1), alone[-1], atol=1e-5, rtol=1e-5)


def test_the_teacher_is_frozen_and_has_no_lm_head() -> None:
    teacher = load_teacher(find_teacher(EMBEDDED_TEACHER), (-1,), torch.device("cpu"), "fp32")
    assert not any(weight.requires_grad for weight in teacher.body.parameters())
    assert not teacher.body.training
    assert not [name for name, _ in teacher.body.named_modules() if "lm_head" in name]


@pytest.mark.parametrize("layers", [(4,), (-5,), (99,), (-1, 3), (0, 0)])
def test_unknown_and_repeated_layers_are_refused(layers: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="--layers"):
        Teacher(body("qwen2"), layers)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/x", "just-a-word", "a.gguf"])
def test_unknown_teachers_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="teacher"):
        find_teacher(name)


def test_weights_are_identified_by_content_not_path(tmp_path: Path) -> None:
    for name in ("a", "b"):
        torch.manual_seed(0)
        Qwen2ForCausalLM(Qwen2Config(**SMALL)).save_pretrained(tmp_path / name)
    torch.manual_seed(1)
    Qwen2ForCausalLM(Qwen2Config(**SMALL)).save_pretrained(tmp_path / "c")
    one, same, other = (find_teacher(str(tmp_path / name)).weights_hash() for name in "abc")
    assert one == same
    assert one != other


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    Qwen2Config(**SMALL).save_pretrained(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        find_teacher(str(tmp_path)).weights_hash()
    with pytest.raises(InputError, match="cannot be loaded"):
        load_teacher(find_teacher(str(tmp_path)), (-1,), torch.device("cpu"), "fp32")


def gemma2() -> PreTrainedModel:
    """Return a model that caps its logits by `tanh`."""
    return Gemma2ForCausalLM(
        Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=2.0, initializer_range=0.5)
    )


def phi() -> PreTrainedModel:
    """Return a model whose LM head has a bias."""
    config = PhiConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
    )
    model = PhiForCausalLM(config)
    torch.nn.init.normal_(model.lm_head.bias)
    return model


@pytest.mark.parametrize("family", [gemma2, phi])
def test_predictions_from_states_match_the_whole_model(
    family: Callable[[], PreTrainedModel], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    whole = family().eval()
    whole.save_pretrained(tmp_path)
    teacher = load_teacher(
        find_teacher(str(tmp_path)), (-1,), torch.device("cpu"), "fp32", with_lm_head=True
    )
    ids = torch.randint(0, 40, (1, 12))
    with torch.inference_mode():
        expected = whole(ids).logits[0].float().log_softmax(dim=-1)
    predicted = teacher.log_probabilities(teacher.hidden_states(ids)[-1][0])
    torch.testing.assert_close(predicted, expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.1
    if family is phi:
        with pytest.raises(InputError, match="the LM head of teacher PhiModel has a bias"):
            teacher.lm_head_rows([1, 2])
    teacher.drop_lm_head()
    with pytest.raises(InputError, match="no LM head"):
        teacher.log_probabilities(teacher.hidden_states(ids)[-1][0])


@pytest.mark.parametrize(("scale", "plain"), [(1.0, True), (20.0, False)])
def test_heads_with_extra_computation_are_refused(
    scale: float, plain: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=scale, initializer_range=0.5))
    model.save_pretrained(tmp_path)
    source = find_teacher(str(tmp_path))
    if plain:
        assert load_teacher(
            source, (-1,), torch.device("cpu"), "fp32", with_lm_head=True
        ).has_lm_head
    else:
        with pytest.raises(InputError, match="neither --keep-head nor the baseline teacher"):
            load_teacher(source, (-1,), torch.device("cpu"), "fp32", with_lm_head=True)


def test_random_weights_depend_on_the_seed_alone() -> None:
    cpu, ids = torch.device("cpu"), torch.tensor([[5, 6, 7, 8]])
    torch.manual_seed(11)
    drawn = torch.rand(1)
    torch.manual_seed(11)
    sources = [find_teacher(f"random:{seed}:{EMBEDDED_TEACHER}") for seed in (3, 3, 4)]
    states = [load_teacher(source, [-1], cpu, "fp32").hidden_states(ids)[-1] for source in sources]
    assert torch.equal(torch.rand(1), drawn)  # the global generator is untouched
    assert torch.equal(states[0], states[1])
    assert not torch.allclose(states[0], states[2], atol=0.1)
    trained = find_teacher(EMBEDDED_TEACHER)
    assert not torch.allclose(
        states[0], load_teacher(trained, [-1], cpu, "fp32").hidden_states(ids)[-1], atol=0.1
    )
    assert [source.weights_hash() for source in sources] == ["random:3", "random:3", "random:4"]
    assert sources[0].pinned().name == sources[0].name
    assert (
        sources[0].load_tokenizer()("a")["input_ids"] == trained.load_tokenizer()("a")["input_ids"]
    )
    for unusable, problem in (
        ("random:3:/nowhere", "neither a folder"),
        ("random:x:y", "write random:SEED:TEACHER"),
    ):
        with pytest.raises(InputError, match=problem):
            find_teacher(unusable)
