"""GPU tests: results match the CPU, are deterministic, and small memory is handled."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cache import open_cache
from cache.codecs import CODEC_NAMES
from cache.journal import scan_journal
from pipeline.batches.collate import collate
from pipeline.batches.decoder import StatesDecoder
from pipeline.batches.whole_examples import WholeExamples
from pipeline.data.conversations import Turn
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.generation.open_writer import open_writer
from pipeline.generation.settings import Sampling, WriterSettings
from pipeline.model import LLMModulesForCausalLM
from pipeline.runs.folder import RunFolder
from pipeline.runs.settings import TrainSettings
from pipeline.training.run import train
from tests.cache.examples import make_cache, make_shards
from tests.cli_process import CliProcess, run_process

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

Make = Callable[..., ExtractSettings]


def quick(cache: Path, run: Path, **changes: Any) -> TrainSettings:
    settings = TrainSettings(
        cache=cache,
        run=run,
        epochs=2,
        batch_size=8,
        bridge_lr=2e-3,
        student_lr=2e-3,
        log_every=2,
        device="cuda",
    )
    return replace(settings, **changes)


def states_of(cache: Path, layer: int) -> np.ndarray:
    with open_cache(cache) as opened:
        return np.concatenate(
            [example.hidden_states[layer].astype(np.float32) for example in opened]
        )


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(
        torch.equal(values, second[name]) for name, values in first.items()
    )


@pytest.fixture(scope="module")
def cache_of_gpu(embedded_settings: Make) -> Path:
    settings = embedded_settings(
        device="cuda",
        dtype="auto",
        keep_head=True,
        codec=("klt", "0:bf16"),
        fidelity=("-1:kl=0.01",),
    )
    extract(prepare(settings))
    return settings.cache


@pytest.mark.parametrize(("dtype", "most"), [("fp32", 3e-3), ("bf16", 3e-2)])
def test_hidden_states_match_the_cpu(
    dtype: str, most: float, small_cache: Path, embedded_settings: Make
) -> None:
    """The tolerance covers rounding, including that of bfloat16 storage."""
    settings = embedded_settings(device="cuda", dtype=dtype)
    extract(prepare(settings))
    for layer in (-1, 0):
        expected, actual = states_of(small_cache, layer), states_of(settings.cache, layer)
        assert np.linalg.norm(actual - expected) < most * np.linalg.norm(expected), layer


@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_batches_decoded_on_the_gpu_match_the_cache(codec: str, tmp_path: Path) -> None:
    shards = make_shards([[5, 3, 9]], hidden_size=24)
    shards[0][1].hidden_states[-1][2] *= 1000
    cache = open_cache(make_cache(tmp_path / "c", shards, codec=codec))
    batch = {
        name: values.cuda()
        for name, values in collate(
            WholeExamples(cache, range(3), [-1]).__getitems__([0, 1, 2])
        ).items()
    }
    decoded = StatesDecoder([cache.codecs[-1]]).cuda()(batch)["hidden_states"].float().cpu().numpy()
    for index, states in enumerate(decoded):
        expected = cache[index].hidden_states[-1].astype(np.float32)
        assert np.allclose(states[: len(expected)], expected, rtol=1e-2, atol=1e-2)


def test_a_killed_extract_resumes_to_the_same_content(tmp_path: Path) -> None:
    options = ["--layers", "-1,0", "--limit", 200, "--shard-tokens", 1500]
    options += ["--codec", "klt", "--device", "cuda", "--json"]
    whole = run_process("extract", "--cache", tmp_path / "whole", *options)
    assert whole.returncode == 0, whole.stderr
    cut = tmp_path / "cut"
    process, until = CliProcess("extract", "--cache", cut, *options), time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        if cut.is_dir() and len(scan_journal(cut).records) > 1:
            break
        time.sleep(0.001)
    assert process.poll() is None
    process.kill()
    process.wait()
    resumed = run_process("extract", "--cache", cut, *options)
    assert resumed.returncode == 0, resumed.stderr
    result = json.loads(resumed.stdout)
    assert 1 < result["resumed_shards"] < result["shards"]
    assert result["content_digest"] == json.loads(whole.stdout)["content_digest"]


def test_batches_are_halved_when_memory_runs_out(
    embedded_settings: Make, small_cache: Path
) -> None:
    settings = embedded_settings(device="cuda", shard_tokens=65536, limit=400)
    prepared = prepare(settings)
    torch.cuda.empty_cache()
    # For the weights, 32 MiB for cuBLAS, and less than a batch of 32,768 tokens needs.
    free = 72 * 2**20
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_reserved() + free) / torch.cuda.get_device_properties(0).total_memory
    )
    try:
        extract(prepared)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    with open_cache(settings.cache) as cache:
        assert cache.records[-1].provenance["batch_tokens"] < 32_768
    expected = states_of(small_cache, -1)
    actual = states_of(settings.cache, -1)[: len(expected)]
    assert np.linalg.norm(actual - expected) < 3e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "batch_size": 1,
            "batch_tokens": 2048,
            "vocab": "dataset",
            "head_init": "teacher",
            "gradient_checkpointing": True,
        },
        {"distill": 0.5, "precision": "fp32"},
        {"condition": "prompt"},
        {"condition": "none"},
        {"cross_attention": "bidirectional", "layers": (0, -1)},
    ],
    ids=lambda options: "-".join(options) or "default",
)
def test_the_same_run_gives_the_same_weights(
    options: dict[str, Any], cache_of_gpu: Path, tmp_path: Path
) -> None:
    record = train(quick(cache_of_gpu, tmp_path / "one", **options))
    train(quick(cache_of_gpu, tmp_path / "other", **options))
    assert same(tmp_path / "one", tmp_path / "other")
    assert record.result.peak_memory["gpu_bytes"] > 1e6


def test_a_killed_run_resumes_to_the_same_weights(cache_of_gpu: Path, tmp_path: Path) -> None:
    options: list[object] = ["train", "--cache", cache_of_gpu, "--device", "cuda"]
    options += ["--epochs", 6, "--batch-size", 8, "--bridge-lr", 2e-3, "--student-lr", 2e-3]
    options += ["--eval-every", 2, "--log-every", 1, "--patience", 0]
    whole = run_process(*options, "--run", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    process, until = CliProcess(*options, "--run", tmp_path / "cut"), time.monotonic() + 120
    while (
        process.poll() is None
        and time.monotonic() < until
        and len(RunFolder(tmp_path / "cut").read_metrics()) < 7
    ):
        time.sleep(0.002)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert RunFolder(tmp_path / "cut").last_checkpoint() is not None
    resumed = run_process(*options, "--run", tmp_path / "cut", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert same(tmp_path / "whole", tmp_path / "cut")


def test_training_matches_the_cpu_and_the_student_generates(
    small_cache: Path, tmp_path: Path
) -> None:
    runs = {device: tmp_path / device for device in ("cpu", "cuda")}
    losses = {
        device: train(quick(small_cache, run, device=device, precision="fp32")).result.best_val_loss
        for device, run in runs.items()
    }
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)
    given = torch.randn(1, 9, 128, generator=torch.Generator().manual_seed(0))
    student = LLMModulesForCausalLM.from_pretrained(runs["cpu"] / "model").eval()
    with torch.inference_mode():
        logits = {
            device: student.to(device)(hidden_states=given.to(device)).logits.cpu()
            for device in runs
        }
    torch.testing.assert_close(logits["cuda"], logits["cpu"], atol=1e-3, rtol=1e-3)
    writer = open_writer(WriterSettings(run=runs["cpu"], device="cuda"))
    (written,) = writer.write(
        [[*writer.opening(), Turn("user", "Tom has 3 eggs.")]], Sampling(max_new_tokens=8)
    )
    assert 1 <= written.tokens <= 8


def test_a_run_is_evaluated_with_all_baselines(cache_of_gpu: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    quick = ["--controls", "--max-steps", 4, "--batch-size", 8]
    trained = run_process("train", "--cache", cache_of_gpu, "--run", run, *quick)
    assert trained.returncode == 0, trained.stderr
    options = ["--baselines", "all", "--samples", 3, "--max-new-tokens", 8, "--json"]
    done = run_process("evaluate", "--run", run, *options)
    assert done.returncode == 0, done.stderr
    actual = json.loads(done.stdout)
    not_measured = actual["not_measured"]  # answers that do not end, baselines of a new GPT-Neo
    assert not_measured.keys() <= {"answers", "fine-tuned"}, not_measured
    record = RunFolder(run).require_finished()
    assert actual["students"][0]["val_loss"] == pytest.approx(record.result.best_val_loss, rel=2e-2)
