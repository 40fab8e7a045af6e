"""A training run: its folder, its comparison runs, and how it ends."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from cache import CacheError, open_cache
from pipeline.batches.collate import collate
from pipeline.batches.decoder import StatesDecoder
from pipeline.batches.whole_examples import WholeExamples
from pipeline.data.sources import load_conversations
from pipeline.device import choose_device
from pipeline.errors import InputError, RunError
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.generation.settings import Sampling
from pipeline.generation.writer import StudentWriter
from pipeline.model import LLMModulesForCausalLM
from pipeline.runs.comparisons import CONTROLS
from pipeline.runs.folder import RunFolder
from pipeline.teacher.verified_load import load_verified_teacher
from pipeline.training.run import train
from tests.pipeline.short_runs import short_run


def test_a_run_folder_has_record_metrics_and_checkpoints(trained_run: Path) -> None:
    folder = RunFolder(trained_run)
    record = folder.read_record()
    assert record.finished
    assert not record.leaks
    assert record.settings.epochs == 3
    assert record.identity.cache["teacher_weights"].startswith("sha256:")
    assert record.result.peak_memory["host_bytes"] > 1e6
    assert {"torch", "transformers"} <= record.environment["versions"].keys()
    lines = folder.read_metrics()
    assert all({"step", "epoch", "loss"} <= line.keys() for line in lines)
    assert any("val_loss" in line for line in lines)
    timed = [line for line in lines if "tokens_per_second" in line]
    assert timed
    assert all(0 <= line["loader_wait_share"] <= 1 for line in timed)
    assert list(folder.tensorboard.iterdir())
    assert list(folder.checkpoints.glob("checkpoint-*"))


def test_the_model_is_the_best_one_with_its_tokenizer(trained_run: Path, small_cache: Path) -> None:
    folder = RunFolder(trained_run)
    model = LLMModulesForCausalLM.from_pretrained(folder.model)
    tokenizer = AutoTokenizer.from_pretrained(folder.model)
    assert tokenizer.eos_token_id == model.config.eos_token_id
    losses = [line["val_loss"] for line in folder.read_metrics() if "val_loss" in line]
    assert folder.read_record().result.best_val_loss == pytest.approx(min(losses))
    cache = open_cache(small_cache)
    batch = collate([WholeExamples(cache, [0], [-1])[0]])
    assert model(**StatesDecoder([cache.codecs[-1]])(batch)).loss.isfinite()


def test_controls_get_equal_steps_and_tokens(trained_run: Path) -> None:
    controls = RunFolder(trained_run).comparisons()
    assert sorted(controls) == sorted(CONTROLS)
    result = RunFolder(trained_run).read_record().result
    for control in controls.values():
        assert control.read_record().result.steps == result.steps
        assert control.read_record().result.tokens == result.tokens


def is_pickle(content: bytes) -> bool:
    """Return whether `pickle.load` or `torch.load` would begin to execute the content."""
    return (content[:1] == b"\x80" and content[1:2] in b"\2\3\4\5") or content[:4] == b"PK\3\4"


def test_no_file_of_a_run_is_a_pickle(trained_run: Path) -> None:
    written = {path: path.read_bytes() for path in trained_run.rglob("*") if path.is_file()}
    assert len(written) > 10
    assert [path for path, content in written.items() if is_pickle(content)] == []


def test_pickles_are_recognised_by_their_bytes() -> None:
    saved = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, saved)
    assert is_pickle(saved.getvalue()) and is_pickle(pickle.dumps({"a": 1}))
    torch.save({"a": 1}, legacy := io.BytesIO(), _use_new_zipfile_serialization=False)
    assert is_pickle(legacy.getvalue())


def test_reporters_get_the_losses_and_a_missing_one_is_refused(
    small_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[float] = []

    class Reporter(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            reported.extend(float(logs[name]) for name in ("loss", "val_loss") if name in logs)

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "wandb", Reporter)
    train(short_run(small_cache, tmp_path / "run", max_steps=2, report_to=("wandb",)))
    logged = RunFolder(tmp_path / "run").read_metrics()[-1]
    assert {logged["loss"], logged["val_loss"]} <= set(reported)
    with pytest.raises(InputError, match="--report-to: reports one run"):
        other = short_run(small_cache, tmp_path / "other", report_to=("wandb",))
        train(other, comparisons=CONTROLS)
    with pytest.raises(InputError, match=r"--report-to clearml: .*install"):
        train(short_run(small_cache, tmp_path / "other", report_to=("clearml",)))


def test_a_layer_that_is_not_cached_is_refused_before_training(
    small_cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="holds layer -1,0, not layer 3"):
        train(short_run(small_cache, tmp_path / "run", layers=(3,)))
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="not a cache"):
        train(short_run(tmp_path, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_fails_the_run(small_cache: Path, tmp_path: Path) -> None:
    rates = {"bridge_lr": 1e30, "student_lr": 1e30, "clip": 1e30}
    with pytest.raises(RunError, match="the loss is"):
        train(short_run(small_cache, tmp_path / "run", log_every=1, epochs=9, **rates))


def test_early_stopping_stops(small_cache: Path, tmp_path: Path) -> None:
    settings = short_run(small_cache, tmp_path / "run", patience=1, min_delta=100.0, epochs=9)
    assert train(settings).result.epochs == 2


def test_a_run_with_leaking_attention_is_labelled(small_cache: Path, tmp_path: Path) -> None:
    leaking = {"cross_attention": "bidirectional", "max_steps": 1}
    assert train(short_run(small_cache, tmp_path / "run", **leaking)).leaks


def test_too_few_held_out_rows_are_reported_before_comparisons_are_trained(
    small_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def warnings(name: str, *comparisons: str, **changes: Any) -> str:
        run = short_run(small_cache, tmp_path / name, max_steps=1, **changes)
        train(run, comparisons=comparisons)
        return capsys.readouterr().err

    warning = warnings("few", "layer-0")
    assert "4 of 40 rows are held out; with fewer than 10" in warning
    assert "--validation 0.25" in warning
    assert "held out" not in warnings("enough", "layer-0", validation=0.25)
    assert "held out" not in warnings("alone")


def test_an_overfitted_student_ends_its_answers(
    embedded_settings: Callable[..., ExtractSettings], tmp_path: Path
) -> None:
    settings = embedded_settings(limit=8, layers=(-1,))
    extract(prepare(settings))
    longer = {"epochs": 60, "validation": 0.2, "patience": 0, "eval_every": 60}
    rates = {"bridge_lr": 3e-3, "student_lr": 3e-3}
    record = train(short_run(settings.cache, tmp_path / "run", **longer, **rates))
    teacher = load_verified_teacher(
        record.provenance["teacher"], [-1], record.identity.cache, choose_device("cpu")
    )
    writer = StudentWriter(RunFolder(tmp_path / "run"), lambda: teacher, choose_device("cpu"))
    rows = load_conversations(settings.dataset, limit=8).conversations
    answers = writer.write([row.prompt_turns for row in rows], Sampling(max_new_tokens=200))
    assert sum(answer.stopped for answer in answers) >= 7
    assert sum(answer.text == row.reference for answer, row in zip(answers, rows, strict=True)) >= 5
