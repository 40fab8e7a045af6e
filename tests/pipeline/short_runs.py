"""Settings of runs that take seconds, and the weights of finished runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPTNeoConfig, GPTNeoForCausalLM, PreTrainedTokenizerFast

from pipeline.runs.settings import TrainSettings


def short_run(cache: Path, run: Path, **changes: Any) -> TrainSettings:
    """Return settings of a student of whole examples."""
    settings = TrainSettings(
        cache=cache,
        run=run,
        epochs=3,
        batch_size=8,
        bridge_lr=2e-3,
        student_lr=2e-3,
        log_every=2,
        device="cpu",
    )
    return replace(settings, **changes)


def short_prompt_run(cache: Path, run: Path, **changes: Any) -> TrainSettings:
    """Return settings of a student of prompts."""
    settings = short_run(cache, run, condition="prompt", cross_every=1, epochs=2)
    return replace(settings, **changes)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a run's model by name."""
    return load_file(run / "model" / "model.safetensors")


def require_equal_weights(run: Path, other: Path) -> None:
    """Compare two runs' models bit by bit."""
    weights, others = weights_of(run), weights_of(other)
    assert weights.keys() == others.keys()
    assert [name for name in weights if not torch.equal(weights[name], others[name])] == []


def make_byte_gpt_neo(folder: Path, positions: int) -> Path:
    """Save a GPT-Neo with random weights and a tokenizer of bytes; return its folder."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    rules = Tokenizer(
        models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[])
    )
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=rules, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)  # not the seed of runs, which draw new weights with theirs
    config = GPTNeoConfig(
        vocab_size=300,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=positions,
        window_size=64,
        bos_token_id=256,
        eos_token_id=256,
    )
    GPTNeoForCausalLM(config).save_pretrained(folder)
    return folder
