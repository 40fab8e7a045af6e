"""Evaluation and generation with a student of prompts: the teacher is needed once or never."""

from __future__ import annotations

import gc
import json
import re
import weakref
from pathlib import Path

import pytest

from cache import open_cache
from pipeline.data.conversations import Turn
from pipeline.data.sources import load_conversations
from pipeline.data.split import split_rows
from pipeline.data.transcript import Transcript
from pipeline.device import choose_device
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.evaluation.run import evaluate
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.generation.settings import Sampling
from pipeline.generation.writer import StudentWriter
from pipeline.runs.folder import RunFolder
from pipeline.teacher.load import load_teacher
from pipeline.teacher.model import Teacher
from pipeline.teacher.source import find_teacher
from tests.conftest import RunCli, write_rows


def no_teacher(*_: object, **__: object) -> Teacher:
    raise AssertionError("the teacher was loaded")


def load_embedded_teacher() -> Teacher:
    return load_teacher(find_teacher(EMBEDDED_TEACHER), [-1], choose_device("cpu"), "fp32")


def test_cached_prompts_are_evaluated_without_the_teacher(
    prompt_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.evaluation.teachers.load_verified_teacher", no_teacher)
    results = evaluate(EvaluateSettings(run=prompt_run, samples=4, max_new_tokens=20, device="cpu"))
    student, layer_0, text = results.students
    assert [run.condition for run in results.students] == ["prompt", "prompt", "text"]
    ablations = student.ablations
    assert ablations is not None
    assert ablations.keys() == {"matched", "mismatched", "shuffled", "zeroed", "gates shut"}
    assert ablations["matched"] == student.val_loss
    # Attention to a prompt has no order.
    assert ablations["shuffled"] == pytest.approx(student.val_loss, abs=1e-5)
    assert len({loss for name, loss in ablations.items() if name != "shuffled"}) == 4
    assert "Shuffled is trivial" in results.trivial_ablations
    assert layer_0.ablations is not None and text.ablations is None
    assert "with those of another" in results.verdict
    assert student.exact_match is not None and len(results.samples[0].answers) == 3


def test_answers_do_not_depend_on_the_source_of_states_or_on_batching(
    prompt_run: Path, prompt_cache: Path
) -> None:
    cache, cpu, sampling = (
        open_cache(prompt_cache),
        choose_device("cpu"),
        Sampling(max_new_tokens=15),
    )
    prompts = [Transcript.from_json(cache.text(index), "test").turns[:-1] for index in (0, 7)]
    teacher = load_embedded_teacher()
    cached = StudentWriter(RunFolder(prompt_run), no_teacher, cpu, cache)
    answers = cached.write(prompts, sampling)
    live = StudentWriter(RunFolder(prompt_run), lambda: teacher, cpu)
    assert live.write(prompts, sampling) == answers
    assert [live.write([prompt], sampling)[0] for prompt in prompts] == answers


@pytest.mark.parametrize(("keep", "alive"), [(False, [False, False]), (True, [True])])
def test_the_teacher_is_freed_after_the_prefill_unless_it_is_kept(
    keep: bool, alive: list[bool], prompt_run: Path
) -> None:
    loaded: list[weakref.ref[Teacher]] = []

    def load() -> Teacher:
        teacher = load_embedded_teacher()
        loaded.append(weakref.ref(teacher))
        return teacher

    cpu = choose_device("cpu")
    writer = StudentWriter(RunFolder(prompt_run), load, cpu, keep_teacher=keep)
    for _ in range(2):
        writer.write([[Turn("user", "Ann has 20 pens.")]], Sampling(max_new_tokens=5))
    gc.collect()
    assert [teacher() is not None for teacher in loaded] == alive


def test_generate_needs_a_teacher_only_for_prompts_that_are_not_cached(
    prompt_run: Path, run_cli: RunCli
) -> None:
    row = load_conversations(EMBEDDED_DATASET, limit=1).conversations[0]
    system = next((turn.text for turn in row.turns if turn.role == "system"), "")
    question = row.prompt_turns[-1].text
    generate = (
        *("generate", "--run", prompt_run, "--max-new-tokens", 8, "--device", "cpu", "--json"),
        *("--teacher", "/gone"),
    )
    cached = run_cli(*generate, "--system", system, "--prompt", question)
    assert cached.returncode == 0, cached.stderr
    other = run_cli(*generate, "--prompt", "Something else?")
    assert (other.returncode, "/gone" in other.stderr) == (2, True)
    no_cache = run_cli(*generate, "--prompt", question, "--cache", "/nowhere")
    assert (no_cache.returncode, "/nowhere" in no_cache.stderr) == (2, True)


def test_chat_answers_every_message(prompt_run: Path, run_cli: RunCli) -> None:
    done = run_cli(
        *("chat", "--run", prompt_run, "--max-new-tokens", 8, "--device", "cpu", "--json"),
        text_input="Something else?\nAnd now?\n",
    )
    messages = [answer["message"] for answer in json.loads(done.stdout)["answers"]]
    assert messages == ["Something else?", "And now?"]


def test_training_rows_of_another_data_set_are_not_answered(
    prompt_cache: Path, prompt_run: Path, tmp_path: Path
) -> None:
    settings = RunFolder(prompt_run).settings()
    with open_cache(prompt_cache) as cache:
        training, held_out = split_rows(
            cache.row_ids, validation=settings.validation, seed=settings.seed
        )
        transcripts = [
            Transcript.from_json(cache.text(index), "test") for index in (training[0], held_out[0])
        ]
    rows: list[object] = [
        {"messages": [{"role": turn.role, "content": turn.text} for turn in transcript.turns]}
        for transcript in transcripts
    ]
    results = evaluate(
        EvaluateSettings(
            run=prompt_run,
            dataset=str(write_rows(tmp_path / "rows.jsonl", rows)),
            samples=5,
            max_new_tokens=4,
            device="cpu",
        )
    )
    assert (results.prompts, results.prompts_left_out) == (1, {"was trained on": 1})


def test_options_of_another_condition_and_missing_caches_are_refused(
    prompt_run: Path, trained_run: Path, small_cache: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    generate = ("generate", "--prompt", "a", "--run")
    for command, problem in (
        (
            (*generate, trained_run, "--cache", small_cache),
            "--cache: .*--condition sequence; omit it",
        ),
        (
            (*generate, prompt_run, "--teacher-device", "no:1"),
            "--teacher-device no:1: not usable",
        ),
        (
            ("evaluate", "--run", prompt_run, "--cache", tmp_path / "gone"),
            "gone: no cache here; pass its present location as --cache",
        ),
    ):
        done = run_cli(*command)
        assert done.returncode == 2
        assert re.search(problem, done.stderr), done.stderr
