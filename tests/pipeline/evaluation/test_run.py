"""Evaluation, generation and report on a small run of the embedded default."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from pipeline.commands.running.baselines import train_baselines
from pipeline.data.conversations import Turn
from pipeline.data.split import split_rows
from pipeline.data.tokens import tokenize_prompt
from pipeline.device import choose_device
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.errors import InputError
from pipeline.evaluation.results import EvaluationResults
from pipeline.evaluation.run import evaluate
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.generation.live_teacher import LiveTeacher
from pipeline.generation.settings import Sampling
from pipeline.generation.writer import StudentWriter
from pipeline.runs.comparisons import CONTROLS
from pipeline.runs.folder import RunFolder
from pipeline.runs.settings import TrainSettings
from pipeline.teacher.model import Teacher
from pipeline.teacher.verified_load import load_verified_teacher
from pipeline.training.run import train
from tests.conftest import RunCli, write_rows


@pytest.fixture(scope="module")
def run(small_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    options = TrainSettings(
        cache=small_cache,
        run=folder,
        epochs=3,
        batch_size=8,
        bridge_lr=2e-3,
        gpt_neo_lr=2e-3,
        device="cpu",
    )
    train(options, comparisons=CONTROLS)
    return folder


@pytest.fixture(scope="module")
def teacher(run: Path) -> Teacher:
    identity = RunFolder(run).read_record().identity.cache
    return load_verified_teacher(EMBEDDED_TEACHER, [-1], identity, choose_device("cpu"))


@pytest.fixture(scope="module")
def writer(run: Path, teacher: Teacher) -> StudentWriter:
    return StudentWriter(RunFolder(run), lambda: teacher, choose_device("cpu"))


PROMPTS = [
    [Turn("user", "Ann has 20 pens. Ann buys 15 pens. How many pens does Ann have now?")],
    [Turn("system", "Be brief."), Turn("user", "Ben has 7 eggs.")],
]


@torch.no_grad()
def test_generation_with_caches_equals_recomputing_everything_for_each_token(
    writer: StudentWriter, teacher: Teacher
) -> None:
    (written,) = writer.write(PROMPTS[:1], Sampling(max_new_tokens=12))
    ids = tokenize_prompt(PROMPTS[0], writer.template, writer.tokenizer)
    for _ in range(12):
        states = teacher.hidden_states(torch.tensor([ids]))[-1].bfloat16()
        ids.append(int(writer.model(hidden_states=states, logits_to_keep=1).logits[0, -1].argmax()))
        if ids[-1] == writer.model.config.eos_token_id:
            break
    plain = ids[len(tokenize_prompt(PROMPTS[0], writer.template, writer.tokenizer)) :]
    assert written.text == writer.tokenizer.decode(
        [token for token in plain if token != writer.model.config.eos_token_id]
    )


def test_prompts_of_a_batch_do_not_disturb_each_other(writer: StudentWriter) -> None:
    together = writer.write(PROMPTS, Sampling(max_new_tokens=20))
    alone = [writer.write([prompt], Sampling(max_new_tokens=20))[0] for prompt in PROMPTS]
    assert together == alone


def test_a_streamer_gets_the_answer_as_it_is_written(writer: StudentWriter) -> None:
    pieces: list[str] = []
    (written,) = writer.write(PROMPTS[:1], Sampling(max_new_tokens=20), pieces.append)
    assert "".join(pieces).strip() == written.text.strip()
    assert len(pieces) > 1


def test_sampling_follows_its_seed(writer: StudentWriter) -> None:
    def sample(seed: int) -> str:
        return writer.write(PROMPTS[:1], Sampling(max_new_tokens=30, temperature=1.5, seed=seed))[
            0
        ].text

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(4)}) > 1


def test_an_answer_ends_before_a_text_that_stops_it(
    writer: StudentWriter, run: Path, run_cli: RunCli
) -> None:
    whole = writer.write(PROMPTS, Sampling(max_new_tokens=20))
    stop = whole[0].text.split()[1]
    stopped = writer.write(PROMPTS, Sampling(max_new_tokens=20, stop=(stop, "never written")))
    assert stopped[0].text == whole[0].text[: whole[0].text.index(stop)]
    assert stopped[0].stopped and stopped[0].tokens < whole[0].tokens
    pieces: list[str] = []
    writer.write(PROMPTS[:1], Sampling(max_new_tokens=20, stop=(stop,)), pieces.append)
    assert "".join(pieces) == stopped[0].text  # nothing of the stop text was shown
    other = whole[1].text
    assert stopped[1].text == (other[: other.index(stop)] if stop in other else other)
    done = run_cli("generate", "--run", run, "--prompt", PROMPTS[0][0].text, "--system", "", "--stop", stop, "--json",
                   "--max-new-tokens", 20)  # fmt: skip
    assert json.loads(done.stdout)["text"] == stopped[0].text


def test_the_likelihood_of_an_answer_is_that_of_its_tokens(
    writer: StudentWriter, teacher: Teacher
) -> None:
    (written,) = writer.write(PROMPTS[:1], Sampling(max_new_tokens=6))
    nats, is_likeliest = writer.log_likelihood(PROMPTS[0], written.text)
    assert is_likeliest and nats < 0
    worse, is_likeliest = writer.log_likelihood(PROMPTS[0], "pens pens pens")
    assert not is_likeliest and worse < nats
    ids = tokenize_prompt(PROMPTS[0], writer.template, writer.tokenizer)
    said = writer.tokenizer(written.text, add_special_tokens=False)["input_ids"]
    states = teacher.hidden_states(torch.tensor([ids + said]))[-1].bfloat16()
    with torch.no_grad():
        labels = torch.tensor([[-100] * len(ids) + said])
        summed = writer.model(hidden_states=states, labels=labels, num_items_in_batch=1).loss
    assert nats == pytest.approx(-float(summed), rel=1e-4)


def test_a_prompt_without_room_for_an_answer_is_refused(writer: StudentWriter) -> None:
    with pytest.raises(InputError, match="shorten it"):
        writer.write([[Turn("user", "word " * 4000)]], Sampling())


def test_the_live_teacher_rounds_as_the_cache_does(teacher: Teacher) -> None:
    reader = LiveTeacher(teacher, [-1], torch.device("cpu"))
    assert reader.read(torch.tensor([[5, 6, 7]]), None, 0).dtype == torch.bfloat16
    assert isinstance(reader._past, DynamicCache)
    assert reader._past.get_seq_length() == 3


def test_results_follow_the_run_and_its_controls(run: Path) -> None:
    results = evaluate(EvaluateSettings(run=run, samples=4, max_new_tokens=24, device="cpu"))
    content = json.loads((run / "evaluation/results.json").read_text())
    assert content == results.to_json()
    assert EvaluationResults.from_json(content) == results
    assert [student.name for student in results.students] == ["student", *CONTROLS]
    losses = {line["val_loss"] for line in RunFolder(run).read_metrics() if "val_loss" in line}
    assert results.student.val_loss == pytest.approx(min(losses), abs=1e-5)
    for student in results.students:
        assert student.perplexity == pytest.approx(2.718281828**student.val_loss, rel=1e-6)
        form, stopped = student.thought_solution_form, student.stopped
        for share in (student.exact_match, form, stopped, student.repetition):
            assert share is not None and 0 <= share <= 1
        assert student.val_loss_interval is None  # of four rows
        forward_and_backward = 2 * 3 * student.tokens * 100_000  # of the tiny GPT-Neo
        assert student.training_flops > forward_and_backward
    student, layer_0, no_teacher = results.students
    for control in (layer_0, no_teacher):
        relative_loss = student.val_loss / control.val_loss
        assert control.transfer is not None
        assert control.transfer.score == pytest.approx(1 - relative_loss, abs=1e-6)
        assert control.transfer.rows == results.validation_examples
        assert student.bits_per_byte == pytest.approx(control.bits_per_byte * relative_loss)
    ablations = student.ablations
    assert ablations.keys() == {"matched", "mismatched", "shuffled", "zeroed", "gates shut"}
    assert len(set(ablations.values())) == 5 and no_teacher.ablations is None
    assert len(results.samples) == 4


def test_another_data_set_can_be_answered(run: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [{"question": "What is 3 + 4?", "answer": "#### 7"}])
    results = evaluate(EvaluateSettings(run=run, dataset=str(rows), max_new_tokens=8, device="cpu"))
    assert results.prompts == 1
    assert results.samples[0].prompt == "What is 3 + 4?"


def test_another_teacher_or_cache_is_refused(run: Path, small_cache: Path, tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED_TEACHER, tmp_path / "teacher")
    weights = bytearray((tmp_path / "teacher/model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "teacher/model.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match="teacher_weights is"):
        evaluate(
            EvaluateSettings(run=run, teacher=str(tmp_path / "teacher"), samples=2, device="cpu")
        )
    shutil.copytree(EMBEDDED_TEACHER, tmp_path / "moved")
    results = evaluate(
        EvaluateSettings(
            run=run, teacher=str(tmp_path / "moved"), samples=2, max_new_tokens=4, device="cpu"
        )
    )
    assert results.prompts == 2
    with pytest.raises(InputError, match="content_digest was"):
        record = RunFolder(run).read_record()
        other = tmp_path / "other"
        shutil.copytree(run, other)
        identity = replace(record.identity, content_digest="0" * 64)
        RunFolder(other).write_record(replace(record, identity=identity))
        evaluate(EvaluateSettings(run=other, samples=0, device="cpu"))


def test_rows_that_were_trained_on_are_not_answered_whatever_file_they_come_from(
    run: Path, tmp_path: Path
) -> None:
    copied = shutil.copy(EMBEDDED_DATASET, tmp_path / "copy.jsonl")
    results = evaluate(
        EvaluateSettings(run=run, dataset=str(copied), samples=6, max_new_tokens=4, device="cpu")
    )
    train_rows, validation_rows = split_rows([str(i) for i in range(40)], validation=0.1, seed=0)
    answered = [int(sample.row_id) for sample in results.samples]
    assert not set(answered) & set(train_rows)
    assert answered == [*validation_rows, 40, 41][:6]
    assert results.prompts_left_out == {"was trained on": 36}


def test_prompts_that_are_too_long_are_counted(run: Path, tmp_path: Path) -> None:
    rows = write_rows(
        tmp_path / "rows.jsonl",
        [{"question": "word " * 3000, "answer": "1"}, {"question": "3 + 4?", "answer": "7"}],
    )
    results = evaluate(EvaluateSettings(run=run, dataset=str(rows), max_new_tokens=4, device="cpu"))
    assert results.prompts == 1
    assert sum(results.prompts_left_out.values()) == 1


def test_a_control_that_is_not_finished_is_named(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/comparisons/no-teacher")
    with pytest.raises(InputError, match="no-teacher is not finished"):
        evaluate(EvaluateSettings(run=tmp_path / "run", samples=0, device="cpu"))


def test_prompts_are_read_before_a_baseline_is_trained(run: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        train_baselines(
            EvaluateSettings(
                run=run, dataset="nowhere.jsonl", baselines=("gpt-neo-scratch",), device="cpu"
            )
        )
    assert not (run / "comparisons/gpt-neo-scratch").exists()


def test_a_named_baseline_has_to_be_trained_already(run: Path) -> None:
    with pytest.raises(InputError, match="baseline gpt-neo-scratch is not trained"):
        evaluate(EvaluateSettings(run=run, baselines=("gpt-neo-scratch",), samples=0, device="cpu"))


def test_a_message_that_is_too_long_does_not_end_the_chat(run: Path, run_cli: RunCli) -> None:
    words = ("chat", "--run", run, "--max-new-tokens", 5, "--json")
    done = run_cli(*words, text_input="word " * 3000 + "\nAnn has 3 pens.\n\n")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"not answered: the prompt has \d+ tokens, its teacher reads 1024", done.stderr
    )
    result = json.loads(done.stdout)
    assert ([answer["message"] for answer in result["answers"]], result["unanswered"]) == (
        ["Ann has 3 pens."],
        1,
    )
    alone = run_cli(*words, text_input="word " * 3000 + "\n\n")
    assert (alone.returncode, alone.stdout) == (2, "")


def test_a_chat_that_is_too_long_drops_earlier_messages(run: Path, run_cli: RunCli) -> None:
    once, long = "Ann has 3 pens. " * 20, "Ann has 3 pens. Ann buys 5 pens. " * 40
    done = run_cli(
        "chat",
        "--run",
        run,
        "--max-new-tokens",
        5,
        "--json",
        text_input=f"{once}\n{long}\n{long}\n\n",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("messages before this one are dropped") >= 1
    assert len(json.loads(done.stdout)["answers"]) == 3


def test_generate_and_chat_answer(run: Path, run_cli: RunCli) -> None:
    done = run_cli(
        "generate", "--run", run, "--prompt", "Ann has 3 pens.", "--max-new-tokens", 12, "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tokens"] <= 12
    streamed = run_cli(
        "generate", "--run", run, "--prompt", "Ann has 3 pens.", "--max-new-tokens", 12
    )
    assert json.loads(done.stdout)["text"].strip() in streamed.stdout
    talked = run_cli(
        "chat",
        "--run",
        run,
        "--max-new-tokens",
        5,
        "--json",
        text_input="Hello\n/new\nAnn has 3 pens.\n\n",
    )
    assert talked.returncode == 0, talked.stderr
    assert [answer["message"] for answer in json.loads(talked.stdout)["answers"]] == [
        "Hello",
        "Ann has 3 pens.",
    ]


def test_evaluate_prints_a_table(run: Path, run_cli: RunCli) -> None:
    done = run_cli("evaluate", "--run", run, "--samples", 2, "--max-new-tokens", 8)
    assert done.returncode == 0, done.stderr
    assert all(
        text in done.stdout
        for text in ("student", "layer-0", "no-teacher", "gates shut", "report.html")
    )
