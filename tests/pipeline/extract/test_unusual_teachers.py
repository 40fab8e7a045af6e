"""State-space and multimodal teachers, and damaged ones, which are refused in one line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from cache import open_cache
from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.errors import InputError
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.teacher.hidden_states_reader import HiddenStatesReader
from pipeline.upkeep.recheck import recheck
from pipeline.upkeep.settings import RecheckSettings
from tests.cli_process import run_process
from tests.conftest import RunCli
from tests.pipeline.pretrained.test_files import POINTER
from tests.pipeline.teacher.families import TOKENS, UNSHARED, WITH_TOWERS, plain_pass, tiny_body

Make = Callable[..., ExtractSettings]


def save_teacher(family: str, tokenizer: PreTrainedTokenizerBase, folder: Path) -> PreTrainedModel:
    """Save a tiny teacher of a family with the embedded teacher's tokenizer; return it."""
    config = (UNSHARED | WITH_TOWERS)[family]()
    text_config = config.get_text_config(decoder=True)
    assert text_config.vocab_size == TOKENS
    text_config.vocab_size = len(tokenizer)
    for token in ("image_token_id", "audio_token_id"):
        if hasattr(config, token):
            setattr(config, token, len(tokenizer) - 1)
    tiny_body(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return AutoModel.from_pretrained(folder).eval()


def require_plain(settings: ExtractSettings, model: PreTrainedModel) -> None:
    """Require the cached states to be those of a plain forward pass of each example."""
    for example in open_cache(settings.cache):
        plain = plain_pass(model, example.input_ids.tolist())
        for layer, states in example.hidden_states.items():
            exact = plain[layer].float().numpy()
            error = np.abs(states.astype(np.float32) - exact).max()
            assert error <= 2**-7 * np.abs(exact).max(), layer


@pytest.mark.parametrize("family", ["mamba", "jamba", "lfm2"])
def test_a_teacher_with_a_state_shares_nothing_and_resumes(
    family: str,
    embedded_settings: Make,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    run_cli: RunCli,
) -> None:
    model = save_teacher(family, tokenizer, tmp_path / "teacher")
    settings = embedded_settings(teacher=str(tmp_path / "teacher"), layers=(-1, 0, 1), limit=8)
    plan = prepare(settings)
    result = extract(plan)
    assert result.stored_tokens == result.tokens
    assert result.unshared is not None
    assert plan.manifest.identity["sharing"] is False
    require_plain(settings, model)
    assert all(
        layer.within_tolerance
        for layer in recheck(settings.cache, RecheckSettings(sample=8, device="cpu")).layers
    )
    again = extract(prepare(settings))
    assert (again.resumed_shards, again.content_digest) == (again.shards, result.content_digest)
    assert (
        extract(prepare(replace(settings, sharing=False))).content_digest == result.content_digest
    )
    options = ["--cache", tmp_path / "planned", "--limit", 4, "--device", "cpu", "--plan"]
    planned = run_cli("extract", "--teacher", settings.teacher, *options)
    assert f"nothing is shared: {result.unshared}" in planned.stdout


@pytest.mark.parametrize("family", ["llava", "qwen2_audio"])
def test_the_text_decoder_of_a_multimodal_teacher_is_cached(
    family: str, embedded_settings: Make, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = save_teacher(family, tokenizer, tmp_path)
    settings = embedded_settings(teacher=str(tmp_path), layers=(-1, 0, 1), limit=30)
    result = extract(prepare(settings))
    assert result.stored_tokens < result.tokens
    require_plain(settings, model)


def test_a_teacher_that_turns_out_not_to_continue_from_a_prefix_is_refused_without_a_trace(
    embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HiddenStatesReader, "continues_from_kv", False)
    settings = embedded_settings(limit=30)
    with pytest.raises(
        InputError, match="cannot continue from keys and values; extract with --no-sharing"
    ):
        extract(prepare(settings))
    assert not Path(str(settings.cache)).exists()
    assert extract(prepare(replace(settings, sharing=False))).examples == 30


def wrapped(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {f"_orig_mod.{name}": value for name, value in tensors.items()},
        folder / "model.safetensors",
    )


def other_vocabulary(folder: Path) -> None:
    changed(folder / "config.json", vocab_size=1000)


def fewer_blocks(folder: Path) -> None:
    changed(folder / "config.json", num_hidden_layers=2, layer_types=None)


def pointer_of_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(POINTER)


def pointer_of_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(POINTER)


def cut_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def own_code(folder: Path) -> None:
    changed(
        folder / "config.json",
        model_type="made-up",
        auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Model"},
    )
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")


def changed(file: Path, **fields: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (wrapped, "tensors missing: .*without its wrapper '_orig_mod'"),
        (other_vocabulary, "of another shape: .*embed_tokens"),
        (fewer_blocks, "tensors unexpected: .*layers"),
        (pointer_of_weights, "model.safetensors is a Git LFS pointer"),
        (pointer_of_tokenizer, "tokenizer.json is a Git LFS pointer"),
        (cut_weights, "model.safetensors is truncated or damaged"),
        (own_code, "needs its own code, which is never run"),
    ],
)
def test_a_damaged_teacher_is_refused_in_one_line_without_a_trace(
    damage: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(EMBEDDED_TEACHER, teacher)
    damage(teacher)
    done = run_process(
        "extract", "--teacher", teacher, "--cache", tmp_path / "c", "--limit", 4, "--device", "cpu"
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert not (tmp_path / "c").exists()
    assert not (teacher / "ran").exists()


def test_optional_code_of_a_tokenizer_is_not_run(embedded_settings: Make, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(EMBEDDED_TEACHER, teacher)
    changed(teacher / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Slow", "own.Fast"]})
    (teacher / "own.py").write_text(f"open({str(teacher / 'ran')!r}, 'w')\n")
    assert extract(prepare(embedded_settings(teacher=str(teacher), limit=4))).examples == 4
    assert not (teacher / "ran").exists()
