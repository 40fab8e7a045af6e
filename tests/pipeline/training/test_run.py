"""Training from a cache alone: no teacher, the same after a kill, and a student that stops."""

from __future__ import annotations

import io
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from cache import CacheError, open_cache
from pipeline.batches.collate import collate
from pipeline.batches.decoder import StatesDecoder
from pipeline.batches.whole_examples import WholeExamples
from pipeline.choices import PARTS
from pipeline.data.sources import load_conversations
from pipeline.data.vocabulary import VOCABULARY, read_vocabulary
from pipeline.device import choose_device
from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.errors import InputError, RunError
from pipeline.evaluation.run import evaluate
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.generation.settings import Sampling
from pipeline.generation.writer import StudentWriter
from pipeline.model import LLMModulesForCausalLM
from pipeline.model.self_attention import FusedSelfAttention
from pipeline.processes import Share
from pipeline.runs.comparisons import CONTROLS
from pipeline.runs.folder import RunFolder
from pipeline.runs.settings import TrainSettings
from pipeline.teacher.load import load_teacher
from pipeline.teacher.source import find_teacher
from pipeline.teacher.verified_load import load_verified_teacher
from pipeline.training.prepare import prepare_run
from pipeline.training.run import train
from tests.cache.examples import rewrite_manifest
from tests.cli_process import CliProcess, run_process
from tests.conftest import ROOT


def quick(cache: Path, run: Path, **changes: Any) -> TrainSettings:
    settings = TrainSettings(
        cache=cache,
        run=run,
        epochs=2,
        batch_size=8,
        bridge_lr=2e-3,
        gpt_neo_lr=2e-3,
        log_every=2,
        device="cpu",
    )
    return replace(settings, **changes)


@pytest.fixture(scope="module")
def run_with_controls(small_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("train") / "run"
    train(quick(small_cache, run), comparisons=CONTROLS)
    return run


def test_a_run_folder_holds_what_the_contract_names(run_with_controls: Path) -> None:
    record = RunFolder(run_with_controls).read_record()
    assert record.finished is True
    assert record.leaks is False
    assert record.settings.epochs == 2
    assert record.identity.cache["teacher_weights"].startswith("sha256:")
    assert record.result.peak_memory["host_bytes"] > 1e6
    assert {"torch", "transformers"} <= record.environment["versions"].keys()
    lines = RunFolder(run_with_controls).read_metrics()
    assert all({"step", "epoch", "loss"} <= line.keys() for line in lines)
    assert any("val_loss" in line for line in lines)
    logged = [line for line in lines if "tokens_per_second" in line]
    assert logged
    assert all(0 <= line["loader_wait_share"] <= 1 for line in logged)
    assert list((run_with_controls / "tensorboard").iterdir())
    assert list((run_with_controls / "checkpoints").glob("checkpoint-*"))


@pytest.mark.parametrize(
    "field", ["teacher_weights", "teacher_config", "tokenizer", "dataset", "tokens", "template", "loss_on", "limit", "max_tokens",
              "condition", "compute_dtype", "sharing"],
)  # fmt: skip
def test_a_run_goes_on_only_with_the_cache_it_began_with(
    field: str,
    run_with_controls: Path,
    small_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same numbers under another name are refused as well, field by field, before a model is
    built."""
    stale = shutil.copytree(small_cache, tmp_path / "c")
    rewrite_manifest(stale, lambda content: content["identity"].update({field: "other"}))
    monkeypatch.setattr("pipeline.training.new_student.build_student", None)
    with pytest.raises(InputError, match=f"cannot be resumed: {field} was .*, now it is 'other'"):
        train(quick(stale, run_with_controls), resume=True)
    with pytest.raises(
        InputError,
        match=f"not the cache that the run was trained from: {field} was .*, now it is 'other'",
    ):
        evaluate(EvaluateSettings(run=run_with_controls, cache=stale, samples=0, device="cpu"))


def test_a_cache_coded_otherwise_than_its_identity_says_is_refused(
    small_cache: Path, tmp_path: Path
) -> None:
    stale = shutil.copytree(small_cache, tmp_path / "c")
    for other in ("other", {"-1": "klt", "0": "bf16"}):
        rewrite_manifest(
            stale, lambda content, other=other: content["identity"].update(codec=other)
        )
        with pytest.raises(
            CacheError, match="the codec of layer -1 is not the one in the cache's identity"
        ):
            train(quick(stale, tmp_path / "run"))


def test_the_model_is_the_best_one_with_its_tokenizer(
    run_with_controls: Path, small_cache: Path
) -> None:
    model = LLMModulesForCausalLM.from_pretrained(run_with_controls / "model")
    assert (
        AutoTokenizer.from_pretrained(run_with_controls / "model").eos_token_id
        == model.config.eos_token_id
    )
    record = RunFolder(run_with_controls).read_record()
    losses = {
        line["step"]: line["val_loss"]
        for line in RunFolder(run_with_controls).read_metrics()
        if "val_loss" in line
    }
    assert record.result.best_val_loss == pytest.approx(min(losses.values()))
    store = open_cache(small_cache)
    batch = collate([WholeExamples(store, [0], [-1])[0]])
    assert model(**StatesDecoder([store.codecs[-1]])(batch)).loss.isfinite()


def test_controls_get_equal_steps_and_tokens(run_with_controls: Path) -> None:
    controls = RunFolder(run_with_controls).comparisons()
    assert sorted(controls) == sorted(CONTROLS)
    result = RunFolder(run_with_controls).read_record().result
    for control in controls.values():
        assert control.read_record().result.steps == result.steps
        assert control.read_record().result.tokens == result.tokens


def test_nothing_that_is_written_is_a_pickle(run_with_controls: Path) -> None:
    written = {path: path.read_bytes() for path in run_with_controls.rglob("*") if path.is_file()}
    assert len(written) > 10
    assert [path for path, content in written.items() if is_pickle(content)] == []


def is_pickle(content: bytes) -> bool:
    """Whether `pickle.load` or `torch.load` would begin to execute it."""
    return (content[:1] == b"\x80" and content[1:2] in b"\2\3\4\5") or content[:4] == b"PK\3\4"


def test_pickles_are_recognised_by_their_bytes() -> None:
    saved = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, saved)
    assert is_pickle(saved.getvalue()) and is_pickle(pickle.dumps({"a": 1}))
    torch.save({"a": 1}, legacy := io.BytesIO(), _use_new_zipfile_serialization=False)
    assert is_pickle(legacy.getvalue())


def test_training_never_touches_a_teacher(small_cache: Path, tmp_path: Path) -> None:
    """In a process where importing the teacher's room, or loading any model but the student,
    raises."""
    program = f"""
import sys, transformers
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("pipeline.teacher"):
            raise AssertionError("the teacher was imported: " + name)
sys.meta_path.insert(0, Wall())
def wall(*_, **__):
    raise AssertionError("a model was loaded")
transformers.AutoModel.from_pretrained = transformers.AutoModelForCausalLM.from_pretrained = wall
transformers.Qwen2Model.__init__ = wall
from pathlib import Path
from pipeline.training.prepare import prepare_run
from pipeline.training.run import train
from pipeline.runs.comparisons import CONTROLS
from pipeline.runs.settings import TrainSettings
cache, run = Path({str(small_cache)!r}), Path({str(tmp_path / "run")!r})
train(TrainSettings(cache=cache, run=run, max_steps=2, batch_size=8), comparisons=CONTROLS)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_teacher_in_memory_fails_the_run(small_cache: Path, tmp_path: Path) -> None:
    teacher = load_teacher(find_teacher(EMBEDDED_TEACHER), [-1], choose_device("cpu"), "fp32")
    refusal = r"teacher in memory: Qwen2Model \([\d.]+ MB\); training needs none"
    with pytest.raises(RunError, match=refusal):
        train(quick(small_cache, tmp_path / "run", max_steps=2))
    del teacher
    loaded = train(quick(small_cache, tmp_path / "run", max_steps=2), resume=True).result.loaded
    assert "pipeline.training.run" in loaded["project"]
    assert "gpt_neo" in loaded["model_families"]


def test_a_run_in_a_process_of_its_own_has_loaded_no_teacher(
    small_cache: Path, tmp_path: Path
) -> None:
    command = [
        "train",
        "--cache",
        small_cache,
        "--run",
        tmp_path / "run",
        "--max-steps",
        1,
        "--device",
        "cpu",
    ]
    subprocess.run(
        [sys.executable, ROOT / "cli.py", *map(str, command)], check=True, capture_output=True
    )
    result = RunFolder(tmp_path / "run").read_record().result
    assert not [name for name in result.loaded["project"] if name.startswith("pipeline.teacher")]
    assert result.loaded["model_families"] == ["gpt_neo"]
    assert result.peak_memory["host_bytes"] > 1e8
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_blocks_computed_anew_give_the_same_student(
    small_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attend, computed = FusedSelfAttention.forward, {False: 0, True: 0}
    for name in (False, True):

        def counted(layer: FusedSelfAttention, *args: Any, anew: bool = name, **kwargs: Any) -> Any:
            computed[anew] += layer.training
            return attend(layer, *args, **kwargs)

        monkeypatch.setattr(FusedSelfAttention, "forward", counted)
        train(quick(small_cache, tmp_path / str(name), max_steps=3, gradient_checkpointing=name))
    assert computed[True] == 2 * computed[False] > 0
    plain, anew = weights(tmp_path / "False"), weights(tmp_path / "True")
    assert all(torch.allclose(plain[name], anew[name], atol=1e-6) for name in plain)


def test_reporters_are_told_and_one_that_is_not_installed_is_refused(
    small_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []

    class Reporter(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            told.extend(float(logs[name]) for name in ("loss", "val_loss") if name in logs)

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "wandb", Reporter)
    train(quick(small_cache, tmp_path / "run", max_steps=2, report_to=("wandb",)))
    assert len(told) >= 2
    with pytest.raises(InputError, match="--report-to: reports one run"):
        train(quick(small_cache, tmp_path / "other", report_to=("wandb",)), comparisons=CONTROLS)
    with pytest.raises(InputError, match=r"--report-to clearml: .*install"):
        train(quick(small_cache, tmp_path / "other", report_to=("clearml",)))


def test_a_head_over_the_data_sets_tokens_is_trained_saved_and_writes(
    embedded_settings: Callable[..., ExtractSettings], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    extract(prepare(embedded_settings(cache=cache, limit=60)))
    record = train(quick(cache, tmp_path / "run", vocab="dataset"))
    whole = train(quick(cache, tmp_path / "whole", max_steps=1))
    assert record.result.parameters < whole.result.parameters
    with open_cache(cache) as opened:
        occurring = {int(token) for example in opened for token in example.input_ids}
        held = set(read_vocabulary(opened.attachment(VOCABULARY)))
    assert occurring <= held
    student = LLMModulesForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert student.head_tokens is not None
    assert student.head_tokens.tolist() == sorted(held)
    results = evaluate(
        EvaluateSettings(run=tmp_path / "run", samples=2, max_new_tokens=8, device="cpu")
    )
    assert results.student.val_loss == pytest.approx(record.result.best_val_loss, rel=1e-4)


def test_two_layers_are_read_and_written_with(small_cache: Path, tmp_path: Path) -> None:
    record = train(quick(small_cache, tmp_path / "run", layers=(0, -1)))
    results = evaluate(
        EvaluateSettings(run=tmp_path / "run", samples=2, max_new_tokens=8, device="cpu")
    )
    assert results.student.layers == [0, -1]
    assert results.student.val_loss == pytest.approx(record.result.best_val_loss, rel=1e-4)


@pytest.mark.parametrize("part", PARTS)
def test_what_is_frozen_stays_as_it_is_and_the_rest_is_trained(
    part: str, small_cache: Path, tmp_path: Path
) -> None:
    settings = quick(small_cache, tmp_path / "run", max_steps=2, freeze=(part,))
    with open_cache(small_cache) as cache:
        before = {
            name: values.clone()
            for name, values in prepare_run(cache, settings, Share()).model.state_dict().items()
        }
    train(settings)
    prefix = {"gpt-neo": "body.", "bridge": "bridge.", "head": "lm_head."}[part]
    for name, values in weights(tmp_path / "run").items():
        assert torch.equal(values, before[name]) == name.startswith(prefix), name
    with pytest.raises(InputError, match="nothing is left to train"):
        train(quick(small_cache, tmp_path / "none", freeze=PARTS))
    assert not (tmp_path / "none").exists()


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


@pytest.mark.parametrize("stop_after", [4, 7])
def test_killed_and_resumed_it_goes_on_as_if_nothing_had_happened(
    stop_after: int, small_cache: Path, tmp_path: Path
) -> None:
    options = quick(
        small_cache, tmp_path / "whole", epochs=3, eval_every=2, log_every=1, batch_size=8
    )
    train(options)
    command = [
        "train", "--cache", small_cache, "--run", tmp_path / "cut", "--epochs", 3,
        "--batch-size", 8, "--bridge-lr", 2e-3, "--gpt-neo-lr", 2e-3, "--eval-every", 2, "--log-every", 1, "--device", "cpu",
    ]  # fmt: skip
    process = CliProcess(*command)
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        if len(RunFolder(tmp_path / "cut").read_metrics()) >= stop_after:
            break
        time.sleep(0.002)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert RunFolder(tmp_path / "cut").last_checkpoint() is not None
    resumed = run_process(*command, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    curves = [
        [
            (line["step"], line["loss"], line.get("val_loss"))
            for line in RunFolder(tmp_path / name).read_metrics()
        ]
        for name in ("whole", "cut")
    ]
    assert curves[0] == curves[1]


@pytest.mark.parametrize(
    "ending",
    [{"max_steps": 3}, {"patience": 1, "min_delta": 100.0, "epochs": 9}],
    ids=["steps", "early"],
)
def test_killed_after_its_last_checkpoint_it_ends_as_it_would_have(
    ending: dict[str, Any], small_cache: Path, tmp_path: Path
) -> None:
    settings = quick(small_cache, tmp_path / "run", eval_every=1, **ending)
    whole = train(settings)
    student, folder = weights(tmp_path / "run"), RunFolder(tmp_path / "run")
    shutil.rmtree(folder.model)
    folder.write_record(replace(whole, outcome=None))
    again = train(settings, resume=True)
    same = ("steps", "epochs", "tokens", "best_step", "best_val_loss", "parameters")
    assert {name: getattr(again.result, name) for name in same} == {
        name: getattr(whole.result, name) for name in same
    }
    assert all(
        torch.equal(values, student[name]) for name, values in weights(tmp_path / "run").items()
    )


def test_a_run_is_not_overwritten_and_not_resumed_with_other_settings(
    run_with_controls: Path, small_cache: Path
) -> None:
    with pytest.raises(InputError, match="--resume"):
        train(quick(small_cache, run_with_controls))
    with pytest.raises(InputError, match=r"--bridge-lr was 0\.002, now it is 0\.1"):
        train(quick(small_cache, run_with_controls, bridge_lr=0.1), resume=True)
    before = (run_with_controls / "run.json").read_text()
    train(quick(small_cache, run_with_controls), resume=True)  # finished: nothing to do
    assert (run_with_controls / "run.json").read_text() == before


def test_a_layer_that_is_not_cached_is_refused_before_anything_is_made(
    small_cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="holds layer -1,0, not layer 3"):
        train(quick(small_cache, tmp_path / "run", layers=(3,)))
    assert not (tmp_path / "run").exists()


def test_what_is_not_a_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError):
        train(quick(tmp_path, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_fails_the_run(small_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the loss is"):
        train(
            quick(
                small_cache,
                tmp_path / "run",
                bridge_lr=1e30,
                gpt_neo_lr=1e30,
                clip=1e30,
                log_every=1,
                epochs=9,
            )
        )


def test_early_stopping_stops(small_cache: Path, tmp_path: Path) -> None:
    record = train(quick(small_cache, tmp_path / "run", patience=1, min_delta=100.0, epochs=9))
    assert record.result.epochs == 2


def test_the_leaking_variant_is_labelled(small_cache: Path, tmp_path: Path) -> None:
    settings = quick(small_cache, tmp_path / "run", cross_attention="bidirectional", max_steps=1)
    assert train(settings).leaks is True


def test_the_student_learns_to_stop(
    embedded_settings: Callable[..., ExtractSettings], tmp_path: Path
) -> None:
    """Overfitted to a few problems, it ends its answers itself, and with the right words."""
    settings = embedded_settings(limit=8, layers=(-1,))
    extract(prepare(settings))
    options = quick(
        settings.cache,
        tmp_path / "run",
        epochs=60,
        validation=0.2,
        patience=0,
        bridge_lr=3e-3,
        gpt_neo_lr=3e-3,
    )
    record = train(replace(options, eval_every=60))
    teacher = load_verified_teacher(
        record.provenance["teacher"], [-1], record.identity.cache, choose_device("cpu")
    )
    writer = StudentWriter(RunFolder(tmp_path / "run"), lambda: teacher, choose_device("cpu"))
    rows = load_conversations(settings.dataset, limit=8).conversations
    written = writer.write([row.prompt_turns for row in rows], Sampling(max_new_tokens=200))
    assert sum(answer.stopped for answer in written) >= 7
    assert sum(answer.text == row.reference for answer, row in zip(written, rows, strict=True)) >= 5
