"""Each way of joining the states of a prompt with tokens, on decoders of several families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from pipeline.errors import InputError
from pipeline.model import LLMModulesForCausalLM
from pipeline.model.bridges.joins.dropout import drop_states
from pipeline.model.bridges.joins.interface import PromptInputs
from tests.pipeline.model.decoders import DECODERS, save_decoder
from tests.pipeline.model.prompt_students import make_prompt_student, opened, random_inputs

JOINS = [("cross",), ("add",), ("cross", "add")]
GREEDY = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}


@pytest.fixture(scope="module", params=DECODERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder(request.param, tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def gpt_neo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder("gpt-neo", tmp_path_factory.mktemp("decoder"))


def joined(folder: Path, join: tuple[str, ...], **shape: Any) -> LLMModulesForCausalLM:
    """Return a student whose joins have large random weights."""
    student = opened(make_prompt_student(folder, join=join, prompt_text=True, **shape))
    for name, weights in student.named_parameters():
        if ".joins." in name and weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.3)
    return student


def row_of(tokens: int, states: int, seed: int) -> dict[str, torch.Tensor]:
    """Return one prompt: tokens, states, and the places of the tokens, the first two without."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(0, states, (1, tokens), generator=generator)
    places[:, :2] = -1
    return random_inputs(1, tokens, states, seed) | {
        "state_places": places,
        "states_mask": torch.ones(1, states, dtype=torch.long),
    }


def batch_of(rows: list[dict[str, torch.Tensor]], side: str) -> dict[str, torch.Tensor]:
    """Return prompts as a batch: tokens padded on one side, states on the right."""

    def padded(name: str, value: int = 0, where: str = side) -> torch.Tensor:
        sequences = [row[name][0] for row in rows]
        return pad_sequence(sequences, True, value, padding_side=where)

    return {
        "input_ids": padded("input_ids"),
        "state_places": padded("state_places", -1),
        "hidden_states": padded("hidden_states", where="right"),
        "states_mask": padded("states_mask", where="right"),
        "attention_mask": pad_sequence(
            [torch.ones_like(row["input_ids"][0]) for row in rows], True, padding_side=side
        ),
    }


@torch.no_grad()
@pytest.mark.parametrize("join", [("cross",), ("add",), ("cross", "add")])
def test_an_untrained_student_equals_the_decoder(folder: Path, join: tuple[str, ...]) -> None:
    row = row_of(9, 5, 0)
    expected = AutoModelForCausalLM.from_pretrained(folder).eval()(row["input_ids"]).logits
    student = make_prompt_student(folder, join=join, prompt_text=True)
    torch.testing.assert_close(student(**row).logits, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("join", JOINS)
def test_the_states_matter(folder: Path, join: tuple[str, ...]) -> None:
    row, student = row_of(9, 5, 0), joined(folder, join)
    other = row | {"hidden_states": row["hidden_states"].flip(-1)}
    assert (student(**row).logits - student(**other).logits)[0, -1].abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("join", JOINS)
def test_generation_equals_reading_the_whole_text(folder: Path, join: tuple[str, ...]) -> None:
    row, student = row_of(6, 5, 1), joined(folder, join)
    written = student.generate(
        **row, attention_mask=torch.ones_like(row["input_ids"]), max_new_tokens=8, **GREEDY
    )
    for length in range(6, 14):
        places = torch.full((1, length), -1)
        places[:, :6] = row["state_places"]
        whole = row | {"input_ids": written[:, :length], "state_places": places}
        assert student(**whole).logits[0, -1].argmax() == written[0, length]


@torch.no_grad()
@pytest.mark.parametrize("join", JOINS)
def test_generation_needs_no_key_value_cache(gpt_neo: Path, join: tuple[str, ...]) -> None:
    rows = [row_of(tokens, states, tokens) for tokens, states in ((3, 6), (7, 4))]
    student, batch = joined(gpt_neo, join), batch_of(rows, "left")
    cached, recomputed = (
        student.generate(**batch, max_new_tokens=6, use_cache=use_cache, **GREEDY)
        for use_cache in (True, False)
    )
    assert torch.equal(cached, recomputed)


@torch.no_grad()
@pytest.mark.parametrize("join", JOINS)
def test_a_padded_batch_is_generated_as_one_by_one(folder: Path, join: tuple[str, ...]) -> None:
    student = joined(folder, join)
    rows = [row_of(tokens, states, tokens) for tokens, states in ((3, 6), (9, 2), (7, 4))]
    alone = [
        student.generate(
            **row, attention_mask=torch.ones_like(row["input_ids"]), max_new_tokens=8, **GREEDY
        )[0, -8:].tolist()
        for row in rows
    ]
    together = student.generate(**batch_of(rows, "left"), max_new_tokens=8, **GREEDY)
    assert together[:, -8:].tolist() == alone


@torch.no_grad()
@pytest.mark.parametrize("search", [{"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}])
@pytest.mark.parametrize("join", JOINS)
def test_beam_search_in_a_batch_equals_one_by_one(
    gpt_neo: Path, join: tuple[str, ...], search: dict[str, int]
) -> None:
    student, options = joined(gpt_neo, join), {"max_new_tokens": 6, **GREEDY, **search}
    rows = [row_of(tokens, states, tokens) for tokens, states in ((3, 6), (7, 4))]
    alone = [
        answer
        for row in rows
        for answer in student.generate(
            **row, attention_mask=torch.ones_like(row["input_ids"]), **options
        )[:, -6:].tolist()
    ]
    together = student.generate(**batch_of(rows, "left"), **options)
    assert together[:, -6:].tolist() == alone


@torch.no_grad()
@pytest.mark.parametrize("join", JOINS)
def test_a_padded_batch_is_read_as_one_by_one(folder: Path, join: tuple[str, ...]) -> None:
    student = joined(folder, join)
    rows = [row_of(tokens, states, tokens) for tokens, states in ((3, 6), (9, 2), (7, 4))]
    together = student(**batch_of(rows, "right")).logits
    for number, row in enumerate(rows):
        alone = student(**row).logits[0]
        torch.testing.assert_close(together[number, : len(alone)], alone, atol=1e-4, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(join=st.sampled_from(JOINS), changed=st.integers(1, 8), seed=st.integers(0, 99))
@torch.no_grad()
def test_no_token_sees_a_later_one(
    gpt_neo: Path, join: tuple[str, ...], changed: int, seed: int
) -> None:
    row, student = row_of(9, 5, seed), joined(gpt_neo, join)
    ids = row["input_ids"].clone()
    ids[0, changed] = (ids[0, changed] + 1) % 40
    before = student(**row).logits[0, :changed]
    torch.testing.assert_close(student(**row | {"input_ids": ids}).logits[0, :changed], before)


@settings(max_examples=25, deadline=None)
@given(state=st.integers(0, 4), seed=st.integers(0, 99))
@torch.no_grad()
def test_an_added_state_is_seen_from_its_first_token_on(
    gpt_neo: Path, state: int, seed: int
) -> None:
    row, student = row_of(9, 5, seed), joined(gpt_neo, ("add",))
    row["state_places"] = row["state_places"].sort(dim=1).values
    states = row["hidden_states"].clone()
    states[0, state] += torch.randn(states.shape[-1])
    first = int((row["state_places"][0] < state).sum())
    before = student(**row).logits[0, :first]
    torch.testing.assert_close(student(**row | {"hidden_states": states}).logits[0, :first], before)


@torch.no_grad()
def test_added_states_scale_with_the_embedding_of_their_token(gpt_neo: Path) -> None:
    student, row = joined(gpt_neo, ("add",)), row_of(6, 5, 0)
    embed, added = student.body.get_input_embeddings(), []
    student.body.register_forward_pre_hook(
        lambda _, __, inputs: added.append(inputs["inputs_embeds"] - embed(row["input_ids"])),
        with_kwargs=True,
    )
    student(**row)
    embed.weight.mul_(10)
    student(**row)
    assert not added[0][0, :2].any()  # these tokens have no state
    assert added[0][0, 2:].any(dim=-1).all()
    torch.testing.assert_close(added[1], 10 * added[0])


@pytest.mark.parametrize("join", JOINS)
def test_every_weight_of_a_join_learns(folder: Path, join: tuple[str, ...]) -> None:
    student = joined(folder, join).train()
    row = row_of(9, 5, 0)
    student(**row, labels=row["input_ids"]).loss.backward()
    idle = [
        name
        for name, weights in student.bridge.named_parameters()
        if weights.grad is None or not weights.grad.abs().max()
    ]
    assert all("key.bias" in name or name == "mix" for name in idle), idle


@torch.no_grad()
@pytest.mark.parametrize("join", JOINS)
def test_a_saved_student_is_the_same(gpt_neo: Path, tmp_path: Path, join: tuple[str, ...]) -> None:
    student = joined(gpt_neo, join, layers=(3, -1), mix_layers=True)
    for norm in student.bridge.norm:
        norm.fit(3 + torch.randn(20, norm.size))
    row = row_of(9, 5, 0) | random_inputs(1, 9, 5, 0, layers=2)
    student.save_pretrained(tmp_path)
    loaded = LLMModulesForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(**row).logits, student(**row).logits)


@torch.no_grad()
def test_mixed_layers_are_read_by_their_weights(gpt_neo: Path) -> None:
    student = joined(gpt_neo, ("add",), layers=(3, -1), mix_layers=True)
    student.bridge.get_parameter("mix").copy_(torch.tensor([40.0, 0.0]))
    row = row_of(9, 5, 0) | random_inputs(1, 9, 5, 0, layers=2)
    logits = student(**row).logits
    changed = row["hidden_states"].clone()
    changed[..., 12:] = 7 * changed[..., 12:].flip(1)
    torch.testing.assert_close(student(**row | {"hidden_states": changed}).logits, logits)
    changed = row["hidden_states"].clone()
    changed[..., :12] = changed[..., :12].flip(1)
    assert (student(**row | {"hidden_states": changed}).logits - logits).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"join": ("add",)}, "--join add: .*--prompt-text"),
        (
            {"join": ("add",), "prompt_text": True, "layers": (3, -1)},
            "--layers 3,-1: .*--mix-layers",
        ),
        ({"mix_layers": True}, "--mix-layers: .* --layers -1;"),
        ({"join": ()}, "--join: "),
        ({"join": ("cross", "cross")}, "--join: "),
    ],
)
def test_contradictory_joins_are_refused(shape: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_prompt_student("tiny", **shape)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 99),
)
def test_dropped_states_are_some_of_each_prompts_own(
    lengths: list[int], share: float, seed: int
) -> None:
    mask_BK = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    places_BT = torch.arange(max(lengths)).where(mask_BK.bool(), -1)
    states = (torch.randn(*mask_BK.shape, 3),)
    torch.manual_seed(seed)
    prompt = drop_states(PromptInputs(states, mask_BK, places_BT), share)
    assert prompt.states_mask is not None and prompt.state_places is not None
    assert (prompt.states_mask <= mask_BK).all()
    assert (prompt.states_mask.sum(dim=1) >= 1).all()
    torch.testing.assert_close(prompt.state_places >= 0, prompt.states_mask.bool())


@torch.no_grad()
def test_states_are_dropped_in_training_alone(gpt_neo: Path) -> None:
    row = row_of(9, 5, 0)
    student = joined(gpt_neo, ("cross", "add"), states_dropout=0.5)
    torch.testing.assert_close(student(**row).logits, student(**row).logits)
    torch.manual_seed(0)
    student.bridge.train()
    first, second = (student(**row).logits for _ in range(2))
    assert (first - second).abs().max() > 1e-3
