"""Students of families other than GPT-Neo, from folders and GGUF files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Model

from pipeline.data.conversations import Turn
from pipeline.generation.open_writer import open_writer
from pipeline.generation.settings import Sampling, WriterSettings
from pipeline.runs.folder import RunFolder
from pipeline.training.run import train
from tests.conftest import RunCli
from tests.pipeline.gguf_files import CONFIG, write_gguf
from tests.pipeline.model.decoders import save_with_tokenizer
from tests.pipeline.short_runs import short_prompt_run, short_run, weights_of


@pytest.fixture(scope="module")
def body() -> Qwen2Model:
    torch.manual_seed(0)
    return Qwen2Model(CONFIG).eval()


@pytest.fixture(scope="module")
def gguf_file(body: Qwen2Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "student.gguf", body)


@pytest.fixture(scope="module")
def llama(byte_gpt_neo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Llama with a tokenizer of its own, and more embeddings than tokens."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    return save_with_tokenizer(model, byte_gpt_neo, tmp_path_factory.mktemp("llama"))


def test_a_gguf_file_is_trained_and_generates(
    body: Qwen2Model, gguf_file: Path, prompt_cache: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = {"student": str(gguf_file), "max_steps": 2, "student_lr": 0.0, "bridge_lr": 0.0}
    train(short_prompt_run(prompt_cache, run, **options))
    weights = weights_of(run)
    for name, expected in body.state_dict().items():
        torch.testing.assert_close(weights[f"body.{name}"], expected)
    torch.testing.assert_close(weights["lm_head.weight"], body.embed_tokens.weight)
    writer = open_writer(WriterSettings(run=run, device="cpu"))
    written = writer.write([[Turn("user", "Ann has 20 pens.")]], Sampling(max_new_tokens=4))
    assert len(written) == 1
    assert writer.tokenizer.eos_token == "<|im_end|>"


@pytest.mark.parametrize("condition", ["prompt", "text", "sequence", "none"])
def test_a_student_of_another_family_learns(
    condition: str, llama: Path, prompt_cache: Path, small_cache: Path, tmp_path: Path
) -> None:
    cache = prompt_cache if condition in ("prompt", "text") else small_cache
    settings = short_run(
        cache,
        tmp_path / "run",
        condition=condition,
        student=str(llama),
        max_steps=4,
        eval_every=2,
        gradient_checkpointing=True,
    )
    record = train(settings)
    losses = [step["val_loss"] for step in record_losses(tmp_path / "run")]
    assert record.result.best_step == 4
    assert losses[-1] < losses[0]


def record_losses(run: Path) -> list[dict[str, float]]:
    return [step for step in RunFolder(run).read_metrics() if "val_loss" in step]


def test_wrong_files_are_refused_before_anything_is_read(
    run_cli: RunCli, prompt_cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    for name, problem in (
        ("broken.gguf", "the configuration cannot be loaded from this GGUF file (it is truncated"),
        ("gone.gguf", "no such file"),
        (".", "no config.json in this folder"),
    ):
        done = run_cli(
            *("train", "--cache", prompt_cache, "--run", tmp_path / "run", "--device", "cpu"),
            *("--condition", "prompt", "--student", tmp_path / name),
        )
        assert done.returncode == 2
        (line,) = done.stderr.strip().splitlines()[-1:]
        assert line.startswith(f"error: student {tmp_path / name}: {problem}")
