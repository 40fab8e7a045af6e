"""In all families, batching, padding and shared prefixes give the states of a plain pass."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from pipeline.errors import InputError
from pipeline.teacher.load import load_teacher
from pipeline.teacher.model import Teacher
from pipeline.teacher.prefix_kv import EMPTY_PREFIX, extend_prefix, read_with_prefixes
from pipeline.teacher.shape import context_length, sharing_obstacle
from pipeline.teacher.source import TeacherKind, find_teacher
from tests.pipeline.teacher.families import (
    DECODERS,
    ENCODERS,
    UNSHARED,
    WITH_TOWERS,
    Make,
    plain_pass,
    tiny_body,
)

LAYERS = (-1, 0, 2)
TEXTS = st.lists(st.lists(st.integers(3, 50), min_size=1, max_size=13), min_size=1, max_size=4)


@cache
def models(make: Make, kind: TeacherKind) -> tuple[PreTrainedModel, Teacher]:
    """Return a base model for plain passes, and a teacher with a copy of it."""
    return tiny_body(make()), Teacher(tiny_body(make()), LAYERS, kind=kind)


@pytest.fixture(autouse=True, scope="module")
def free_models() -> Iterator[None]:
    """Free the models, as tests of training search memory for teachers."""
    yield
    models.cache_clear()
    gc.collect()


def padded(rows: list[list[int]], *, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, rows))
    gaps = [[0] * (longest - len(row)) for row in rows]
    ids = [gap + row if left else row + gap for row, gap in zip(rows, gaps, strict=True)]
    mask = [
        gap + [1] * len(row) if left else [1] * len(row) + gap
        for row, gap in zip(rows, gaps, strict=True)
    ]
    return torch.tensor(ids), torch.tensor(mask)


def require_plain(
    layers: Mapping[int, torch.Tensor],
    mask_BT: torch.Tensor,
    plain: list[list[torch.Tensor]],
    first: int = 0,
) -> None:
    """Compare the states of each row with plain passes, which begin at token `first`."""
    for layer, states_BTD in layers.items():
        for states, mask, exact in zip(states_BTD, mask_BT.bool(), plain, strict=True):
            torch.testing.assert_close(states[mask], exact[layer][first:], rtol=1e-4, atol=1e-4)


def batched_is_plain(make: Make, kind: TeacherKind, texts: list[list[int]]) -> None:
    body, teacher = models(make, kind)
    plain = [plain_pass(body, ids) for ids in sorted(texts, key=len)]
    ids_BT, mask_BT = padded(sorted(texts, key=len))
    require_plain(teacher.hidden_states(ids_BT, mask_BT), mask_BT, plain)


@pytest.mark.parametrize("family", [*DECODERS, *UNSHARED])
@settings(max_examples=10, deadline=None)
@given(texts=TEXTS)
def test_padded_batches_of_a_decoder_match_plain_passes(
    family: str, texts: list[list[int]]
) -> None:
    batched_is_plain((DECODERS | UNSHARED)[family], "decoder", texts)


@pytest.mark.parametrize("family", ENCODERS)
@settings(max_examples=10, deadline=None)
@given(texts=TEXTS)
def test_padded_batches_of_an_encoder_match_plain_passes(
    family: str, texts: list[list[int]]
) -> None:
    batched_is_plain(ENCODERS[family], "encoder", texts)


@pytest.mark.parametrize("family", WITH_TOWERS)
@settings(max_examples=5, deadline=None)
@given(texts=TEXTS)
def test_the_text_decoder_is_used_despite_a_tower_of_the_same_shape(
    family: str, texts: list[list[int]]
) -> None:
    batched_is_plain(WITH_TOWERS[family], "decoder", texts)


@pytest.mark.parametrize("family", DECODERS)
@settings(max_examples=10, deadline=None)
@given(
    texts=TEXTS, prefixes=st.lists(st.lists(st.integers(3, 50), max_size=6), min_size=4, max_size=4)
)
def test_states_after_shared_prefixes_match_plain_passes(
    family: str, texts: list[list[int]], prefixes: list[list[int]]
) -> None:
    body, teacher = models(DECODERS[family], "decoder")
    assert teacher.continues_from_kv
    assert sharing_obstacle(body.config) is None
    used = prefixes[: len(texts)]
    prefix_kv = [
        extend_prefix(teacher, torch.tensor([ids]), EMPTY_PREFIX)[1] if ids else EMPTY_PREFIX
        for ids in used
    ]
    ids_BT, mask_BT = padded(texts)
    states = read_with_prefixes(teacher, ids_BT, mask_BT, prefix_kv)
    for row, (shared, own) in enumerate(zip(used, texts, strict=True)):
        one = {layer: states_BTD[row : row + 1] for layer, states_BTD in states.items()}
        require_plain(one, mask_BT[row : row + 1], [plain_pass(body, shared + own)], len(shared))


@pytest.mark.parametrize("family", [*DECODERS, *UNSHARED])
def test_left_padding_does_not_leak(family: str) -> None:
    body, teacher = models((DECODERS | UNSHARED)[family], "decoder")
    texts = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14]]
    plain = [plain_pass(body, ids) for ids in texts]
    ids_BT, mask_BT = padded(texts, left=True)
    require_plain(teacher.hidden_states(ids_BT, mask_BT), mask_BT, plain)


@pytest.mark.parametrize("family", ["long_rope", "dynamic_rope"])
@pytest.mark.parametrize("length", [7, 8, 9])
def test_states_do_not_depend_on_longer_texts_before(family: str, length: int) -> None:
    body, teacher = models(UNSHARED[family], "decoder")
    teacher.hidden_states(torch.arange(3, 16)[None])
    ids = list(range(20, 20 + length))
    mask_BT = torch.ones(1, length, dtype=torch.long)
    states = teacher.hidden_states(torch.tensor([ids]), mask_BT)
    require_plain(states, mask_BT, [plain_pass(body, ids)])


@pytest.mark.parametrize("family", UNSHARED)
def test_unshareable_families_are_known_from_their_configuration(family: str) -> None:
    config = UNSHARED[family]()
    assert sharing_obstacle(config, 100)
    if family not in ("long_rope", "dynamic_rope"):
        assert sharing_obstacle(config)
        assert not models(UNSHARED[family], "decoder")[1].continues_from_kv
    else:
        assert sharing_obstacle(config, 8) is None


@pytest.mark.parametrize(
    ("family", "most"), [("roberta", 510), ("longformer", 64), ("esm", 1024), ("bert", 512)]
)
def test_the_context_of_an_encoder_excludes_unused_positions(family: str, most: int) -> None:
    assert context_length(ENCODERS[family](), "encoder") == most


def test_roberta_reads_texts_of_its_whole_context() -> None:
    config = hf.RobertaConfig(
        **(ENCODERS["roberta"]().to_diff_dict() | {"max_position_embeddings": 14})
    )
    body = tiny_body(config)
    ids = list(range(3, 3 + int(context_length(config, "encoder") or 0)))
    assert len(ids) == 12
    states = Teacher(tiny_body(config), (-1,), kind="encoder").hidden_states(torch.tensor([ids]))
    torch.testing.assert_close(states[-1][0], plain_pass(body, ids)[-1])


def test_models_that_need_more_than_text_are_refused() -> None:
    config = hf.T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=24, num_layers=3, num_heads=2)
    with pytest.raises(InputError, match="teacher T5Model: needs more than token ids"):
        Teacher(hf.T5Model(config), (-1,))


def test_a_layer_of_another_width_is_refused() -> None:
    config = hf.OPTConfig(
        vocab_size=60,
        hidden_size=16,
        ffn_dim=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        word_embed_proj_dim=8,
    )
    assert Teacher(tiny_body(config), (1,)).width == 16
    with pytest.raises(
        InputError, match="layer -1 is 8 wide, but hidden_size in its configuration is 16"
    ):
        Teacher(tiny_body(config), (-1,))


@pytest.mark.parametrize(
    "config",
    [
        hf.T5Config(
            vocab_size=60,
            d_model=16,
            d_kv=8,
            d_ff=24,
            num_layers=3,
            num_decoder_layers=1,
            num_heads=2,
        ),
        hf.BartConfig(
            vocab_size=60,
            d_model=16,
            encoder_layers=3,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
        ),
    ],
    ids=["t5", "bart"],
)
def test_the_encoder_of_an_encoder_decoder_is_used(
    config: hf.PreTrainedConfig, tmp_path: Path
) -> None:
    whole = tiny_body(config)
    whole.save_pretrained(tmp_path)
    teacher = load_teacher(
        find_teacher(str(tmp_path), "encoder"), LAYERS, torch.device("cpu"), "fp32"
    )
    plain = [plain_pass(whole.get_encoder(), ids) for ids in ([5, 6, 7], [8, 9, 10, 11])]
    ids_BT, mask_BT = padded([[5, 6, 7], [8, 9, 10, 11]])
    require_plain(teacher.hidden_states(ids_BT, mask_BT), mask_BT, plain)
