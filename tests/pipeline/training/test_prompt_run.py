"""Training of students of prompts: tokenizers, resuming, object stores, refusals."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from cache import open_cache
from pipeline.batches.answers import CachedAnswers
from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.errors import InputError
from pipeline.extract.prepare import prepare
from pipeline.extract.settings import ExtractSettings
from pipeline.runs.comparisons import CONTROLS
from pipeline.runs.folder import RunFolder
from pipeline.training.run import train
from tests.cache.storage.server import new_address
from tests.cli_process import CliProcess, run_process
from tests.conftest import RunCli, write_rows
from tests.pipeline.short_runs import make_byte_gpt_neo, require_equal_weights, short_prompt_run


def test_one_cache_trains_students_with_any_tokenizer(
    prompt_cache: Path, byte_gpt_neo: Path, tmp_path: Path
) -> None:
    student = {"student": str(byte_gpt_neo), "max_steps": 2}
    own = train(short_prompt_run(prompt_cache, tmp_path / "own", **student))
    teachers = train(
        short_prompt_run(
            prompt_cache, tmp_path / "teachers", student="tiny", vocab="dataset", max_steps=2
        )
    )
    assert teachers.identity.student_tokenizer == own.identity.cache["tokenizer"]
    assert own.identity.student_tokenizer != own.identity.cache["tokenizer"]
    for name in ("own", "teachers"):
        model = RunFolder(tmp_path / name).model
        assert json.loads((model / "config.json").read_text())["condition"] == "prompt"
        assert (model / "teacher_tokenizer" / "tokenizer.json").is_file()
    other = short_prompt_run(
        prompt_cache, tmp_path / "own", **student, student_tokenizer=str(EMBEDDED_TEACHER)
    )
    with pytest.raises(InputError, match="student_tokenizer was"):
        train(other, resume=True)


def test_long_answers_are_left_out_and_counted(
    prompt_cache: Path, byte_gpt_neo: Path, tmp_path: Path
) -> None:
    tokenizer, student = AutoTokenizer.from_pretrained(byte_gpt_neo), str(byte_gpt_neo)
    lengths = CachedAnswers(open_cache(prompt_cache), range(40), [], tokenizer).lengths
    longest = sorted(lengths)[20] - 1  # without the begin token
    run = short_prompt_run(
        prompt_cache, tmp_path / "run", student=student, max_answer_tokens=longest, max_steps=1
    )
    left_out = sum(length > longest + 1 for length in lengths)
    assert train(run).left_out == {f"answers over {longest} tokens": left_out}
    empty = short_prompt_run(prompt_cache, tmp_path / "empty", student=student, max_answer_tokens=2)
    with pytest.raises(
        InputError, match=r"no answer is left, \d+ are over 2 tokens; raise --max-answer-tokens"
    ):
        train(empty)


def test_an_impossible_control_is_refused_before_anything_is_trained(
    prompt_cache: Path, tmp_path: Path
) -> None:
    narrow = make_byte_gpt_neo(tmp_path / "gpt-neo", positions=450)
    run = short_prompt_run(prompt_cache, tmp_path / "run", student=str(narrow))
    with pytest.raises(
        InputError,
        match=r"has 450 positions, the longest example \d+ tokens; leave longer answers out",
    ):
        train(run, comparisons=CONTROLS)
    assert not run.run.exists()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"condition": "sequence"},
            "holds the states of prompts only; train with --condition prompt",
        ),
        ({"condition": "none"}, "holds the states of prompts only"),
        ({"head_init": "teacher"}, "--head-init teacher: .*decoder's"),
        ({"student_tokenizer": "/nowhere"}, "tokenizer /nowhere: neither a folder"),
        ({"cross_every": 9}, "--cross-every 9"),
        ({"layers": (-1, 0, 5)}, "not layer 5"),
        ({"freeze": ("head",)}, "--freeze head: .*the decoder's own"),
        (
            {"freeze": ("student", "bridge")},
            r"nothing is left to train \(--condition prompt\)",
        ),
    ],
)
def test_impossible_students_are_refused(
    changes: dict[str, Any], problem: str, prompt_cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=problem):
        train(short_prompt_run(prompt_cache, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_layers_are_not_mixed_with_a_single_one(prompt_cache: Path, tmp_path: Path) -> None:
    settings = short_prompt_run(prompt_cache, tmp_path / "run", mix_layers=True)
    with pytest.raises(InputError, match="--mix-layers: --layers auto reads a single layer"):
        replace(settings, layers=()).require_sense()
    with pytest.raises(InputError, match="--mix-layers: there is nothing to mix in --layers -1"):
        train(settings)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"condition": "text"}, "reads no teacher to compare with; omit --controls"),
        ({"layers": (0,)}, "layer-0: would be the student"),
    ],
)
def test_controls_that_compare_nothing_are_refused(
    changes: dict[str, Any], problem: str, prompt_cache: Path, tmp_path: Path
) -> None:
    run = short_prompt_run(prompt_cache, tmp_path / "run", **changes)
    with pytest.raises(InputError, match=problem):
        train(run, comparisons=CONTROLS)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"keep_head": True}, "--keep-head: .*its own LM head"),
        ({"loss_on": "all"}, "--loss-on all: .*only the answers"),
    ],
)
def test_extract_refuses_options_without_effect_on_prompts(
    changes: dict[str, Any], problem: str, embedded_settings: Callable[..., ExtractSettings]
) -> None:
    with pytest.raises(InputError, match=problem):
        prepare(embedded_settings(condition="prompt", **changes))


def test_extract_refuses_rows_without_prompts(
    embedded_settings: Callable[..., ExtractSettings], tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": "Snow falls."}] * 2)
    with pytest.raises(
        InputError, match=r"no example is left \(2 without a prompt.*\); choose another"
    ):
        prepare(embedded_settings(condition="prompt", dataset=str(rows), limit=None))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            ("--condition", "prompt", "--cross-layers", 2),
            "--cross-layers: with --condition prompt use --cross-every",
        ),
        (("--cross-every", 2), "--cross-every: with --condition sequence use --cross-layers"),
        (
            ("--condition", "sequence", "--max-answer-tokens", 9),
            "--max-answer-tokens: only for --condition prompt or text",
        ),
    ],
)
def test_options_of_another_condition_are_refused(
    options: tuple[object, ...],
    problem: str,
    run_cli: RunCli,
    small_cache: Path,
    tmp_path: Path,
) -> None:
    done = run_cli("train", "--cache", small_cache, "--run", tmp_path / "run", *options)
    assert (done.returncode, problem in done.stderr) == (2, True), done.stderr


def test_a_control_without_a_teacher_is_not_frozen(prompt_cache: Path, tmp_path: Path) -> None:
    run = short_prompt_run(
        prompt_cache, tmp_path / "run", layers=(0, -1), freeze=("student",), max_steps=1
    )
    train(run, comparisons=("no-teacher",))
    control = RunFolder(run.run).comparisons()["no-teacher"]
    assert control.settings().freeze == ()
    assert control.read_record().finished


def test_a_killed_run_resumes_to_the_same_weights(
    prompt_cache: Path, byte_gpt_neo: Path, tmp_path: Path
) -> None:
    command: list[object] = [
        *("train", "--cache", prompt_cache, "--condition", "prompt", "--cross-every", 1),
        *("--student", byte_gpt_neo, "--batch-tokens", 900, "--epochs", 3),
        *("--eval-every", 2, "--log-every", 1, "--device", "cpu"),
    ]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_process(*command, "--run", whole).returncode == 0
    process = CliProcess(*command, "--run", cut)
    while process.poll() is None and len(RunFolder(cut).read_metrics()) < 5:
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert RunFolder(cut).last_checkpoint() is not None
    assert run_process(*command, "--run", cut, "--resume").returncode == 0
    require_equal_weights(whole, cut)


def test_a_cache_in_an_object_store_gives_the_same_weights(
    prompt_cache: Path, s3_endpoint: str, run_cli: RunCli, tmp_path: Path
) -> None:
    address = new_address()
    store = ("--endpoint", s3_endpoint, "--copies", tmp_path / "copies")
    extracted = run_cli(
        *("extract", "--condition", "prompt", "--layers", "-1,0", "--limit", 40),
        *("--shard-tokens", 1500, "--dtype", "fp32", "--device", "cpu"),
        *("--cache", address, *store, "--json"),
    )
    digest = json.loads(extracted.stdout)["content_digest"]
    assert digest == open_cache(prompt_cache).content_digest
    options = (
        *("--condition", "prompt", "--cross-every", 1, "--batch-size", 8),
        *("--prompt-text", "--join", "cross", "--join", "add"),
        *("--max-steps", 4, "--device", "cpu"),
    )
    for name, cache, more in (("folder", prompt_cache, ()), ("store", address, store)):
        done = run_cli("train", "--cache", cache, "--run", tmp_path / name, *options, *more)
        assert done.returncode == 0, done.stderr
    require_equal_weights(tmp_path / "folder", tmp_path / "store")


def test_a_sweep_varies_the_number_of_cross_attention_layers(
    prompt_cache: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    done = run_cli(
        *("sweep", "--cache", prompt_cache, "--runs", tmp_path / "runs", "--condition", "prompt"),
        *("--vary", "cross-every=1 2", "--max-steps", 2, "--device", "cpu", "--json"),
    )
    assert done.returncode == 0, done.stderr
    one, two = json.loads(done.stdout)["runs"]
    assert one["parameters"] > two["parameters"]
