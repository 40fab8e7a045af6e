"""Incomplete, damaged and misnamed files of models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import Qwen2Config, Qwen2Model

from pipeline.pretrained.files import require_gguf, require_no_pointers, require_weights

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 491400064\n"
SMALL = Qwen2Config(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    Qwen2Model(SMALL).save_pretrained(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    return tmp_path


def lacks_a_shard(folder: Path) -> None:
    next(folder.glob("model-00002-*")).unlink()


def cut_off(folder: Path) -> None:
    shard = next(folder.glob("model-00001-*"))
    shard.write_bytes(shard.read_bytes()[:-100])


def pointer_of_a_shard(folder: Path) -> None:
    next(folder.glob("model-00001-*")).write_bytes(POINTER)


def pointer_of_the_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_bytes(POINTER)


def broken_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {')


def index_that_leads_out(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "../model.safetensors"}})
    )


def no_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").unlink()


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def other_weights(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"transformers_weights": "adapter_model.bin"})
    )


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (
            lacks_a_shard,
            r"model\.safetensors\.index\.json names missing files \(model-00002-of-",
        ),
        (cut_off, r"model-00001-of-.* is truncated or damaged; copy it again"),
        (
            pointer_of_a_shard,
            r"model-00001-of-.* is a Git LFS pointer, not the file itself; run `git lfs pull`",
        ),
        (pointer_of_the_index, r"index\.json is a Git LFS pointer"),
        (broken_index, r"index\.json is not JSON"),
        (index_that_leads_out, r"index\.json does not map tensors to files"),
        (no_index, r"no index of the shards in this folder"),
        (adapter, r"adapter_config\.json.*; merge it"),
        (other_weights, r"transformers_weights: adapter_model\.bin"),
    ],
)
def test_incomplete_weights_are_refused(
    damage: Callable[[Path], None], problem: str, sharded: Path
) -> None:
    require_weights(sharded)
    damage(sharded)
    with pytest.raises(ValueError, match=problem):
        require_weights(sharded)


def test_unused_files_may_be_pointers(sharded: Path) -> None:
    for name in ("pytorch_model.bin", "picture.png", "consolidated.safetensors"):
        (sharded / name).write_bytes(POINTER)
    require_weights(sharded)
    require_no_pointers(sharded)
    (sharded / "tokenizer.json").write_bytes(POINTER)
    with pytest.raises(ValueError, match=r"tokenizer\.json is a Git LFS pointer"):
        require_no_pointers(sharded)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (POINTER, r"x\.gguf is a Git LFS pointer"),
        (b"PK\x03\x04 something else", "it is not a GGUF file"),
        (b"GGUF", "truncated or damaged"),
        (b"GGUF" + bytes(100), "truncated or damaged"),
        (b"GGUF\x03\x00\x00\x00" + b"\xff" * 100, "truncated or damaged"),
    ],
)
def test_anything_but_a_gguf_file_is_refused(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(ValueError, match=problem):
        require_gguf(tmp_path / "x.gguf")
