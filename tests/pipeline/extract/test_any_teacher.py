"""Caches of other teachers than Qwen2 have the states of a plain forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    T5Model,
)

from cache import open_cache
from pipeline.errors import InputError
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from tests.conftest import RunCli, write_rows

SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
Make = Callable[..., ExtractSettings]


def decoder(family: str, vocab_size: int) -> PreTrainedModel:
    if family == "gpt2":
        return GPT2Model(GPT2Config(vocab_size=vocab_size, n_embd=16, n_layer=3, n_head=2))
    kinds = {"llama": (LlamaModel, LlamaConfig), "mistral": (MistralModel, MistralConfig)}
    model, config = kinds[family]
    return model(config(vocab_size=vocab_size, num_key_value_heads=1, **SMALL))


def encoder(family: str, vocab_size: int) -> PreTrainedModel:
    if family == "bert":
        return BertModel(BertConfig(vocab_size=vocab_size, initializer_range=0.5, **SMALL))
    return T5Model(
        T5Config(
            vocab_size=vocab_size,
            d_model=16,
            d_kv=8,
            d_ff=24,
            num_layers=3,
            num_heads=2,
            initializer_factor=3.0,
            decoder_start_token_id=0,
        )
    )


def require_plain(settings: ExtractSettings, model: PreTrainedModel) -> None:
    """Require the cached states to be those of a plain forward pass of each example."""
    for example in open_cache(settings.cache):
        ids_BT = torch.from_numpy(example.input_ids.astype(np.int64))[None]
        with torch.no_grad():
            plain = model(ids_BT, output_hidden_states=True).hidden_states
        for layer, states in example.hidden_states.items():
            exact = plain[layer][0].numpy()
            error = np.abs(states.astype(np.float32) - exact).max()
            assert error <= 2**-7 * np.abs(exact).max(), layer


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
def test_a_decoders_states_are_those_of_a_plain_pass(
    family: str, embedded_settings: Make, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = decoder(family, len(tokenizer)).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    settings = embedded_settings(teacher=str(tmp_path), layers=(-1, 0, 2), limit=30)
    result = extract(prepare(settings))
    assert result.stored_tokens < result.tokens
    require_plain(settings, model)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    texts = [f"word{number} and word{number % 3} make word{number + 1}" for number in range(8)]
    return write_rows(
        tmp_path / "rows.jsonl",
        [{"question": text, "answer": f"it is {text} #### 1"} for text in texts * 2],
    )


def save_encoder(family: str, folder: Path, rows: Path) -> PreTrainedModel:
    """Save a small encoder with a tokenizer of the rows' words; return the encoder."""
    words = Whitespace().pre_tokenize_str(rows.read_text() + " User : Assistant :")
    vocabulary = {
        word: number
        for number, word in enumerate(
            dict.fromkeys(["[PAD]", "[UNK]", "[SEP]", *(word for word, _ in words)])
        )
    }
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    model = encoder(family, len(vocabulary)).eval()
    model.save_pretrained(folder)
    return T5EncoderModel.from_pretrained(folder).eval() if family == "t5" else model


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_an_encoder_shares_nothing_and_its_students_are_marked_as_leaking(
    family: str, embedded_settings: Make, rows: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    model = save_encoder(family, tmp_path / "teacher", rows)
    settings = embedded_settings(
        teacher=str(tmp_path / "teacher"),
        teacher_kind="encoder",
        dataset=str(rows),
        limit=None,
        layers=(-1, 0),
        shard_tokens=100,
    )
    result = extract(prepare(settings))
    assert result.stored_tokens == result.tokens
    require_plain(settings, model)
    del model
    options = ["--run", tmp_path / "run", "--max-steps", 1, "--batch-size", 4]
    trained = run_cli("train", "--cache", settings.cache, *options)
    assert "LEAK" in trained.stdout, trained.stderr
    evaluated = run_cli("evaluate", "--run", tmp_path / "run", "--samples", 0)
    assert "Leaking" in evaluated.stdout, evaluated.stderr
    refused = run_cli("generate", "--run", tmp_path / "run", "--prompt", "word1")
    assert refused.returncode == 2
    assert "its teacher is an encoder" in refused.stderr


def test_a_teacher_of_the_wrong_kind_is_refused(
    embedded_settings: Make, rows: Path, tmp_path: Path
) -> None:
    save_encoder("bert", tmp_path / "teacher", rows)
    settings = embedded_settings(teacher=str(tmp_path / "teacher"), dataset=str(rows), limit=None)
    with pytest.raises(InputError, match="attends to later tokens"):
        extract(prepare(settings))
    with pytest.raises(InputError, match="so it is a decoder; omit --teacher-kind encoder"):
        extract(prepare(replace(embedded_settings(), teacher_kind="encoder")))


def test_codecs_of_an_encoder_have_no_kl_divergence(
    embedded_settings: Make, rows: Path, tmp_path: Path
) -> None:
    save_encoder("bert", tmp_path / "teacher", rows)
    options: dict[str, Any] = {
        "teacher": str(tmp_path / "teacher"),
        "teacher_kind": "encoder",
        "dataset": str(rows),
        "limit": None,
    }
    plan = prepare(embedded_settings(codec=("klt",), **options))
    assert {requirement.measure for requirement in plan.requirements.values()} == {"rel"}
    with pytest.raises(InputError, match="a KL divergence is measured with the LM head"):
        prepare(embedded_settings(codec=("klt",), fidelity=("kl=0.01",), **options))
