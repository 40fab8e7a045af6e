"""Everything that `evaluate` can show, once, on a small run of the embedded default: controls,
baselines, a task, the page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cache import DamagedCacheError
from pipeline.device import choose_device
from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.errors import InputError, RunError
from pipeline.evaluation.harness import HarnessTasks, adapter
from pipeline.evaluation.run import evaluate
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.generation.writer import StudentWriter
from pipeline.runs.comparisons import BASELINES
from pipeline.runs.folder import RunFolder
from pipeline.runs.settings import TrainSettings
from pipeline.teacher.load import load_teacher
from pipeline.teacher.source import find_teacher
from pipeline.training.run import train
from tests.cli_process import run_process
from tests.conftest import RunCli, write_rows

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
NAMES = ["student", "layer-0", "layer-2", "no-teacher", "random-teacher", "gpt-neo-untouched", "gpt-neo-fine-tuned",
         "gpt-neo-scratch", "distilled", "bidirectional", "teacher"]  # fmt: skip
SOURCE = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
doc_to_text: "{{{{q}}}}"
"""
TASKS = {
    "pens": (
        """
task: pens
output_type: generate_until
doc_to_target: "{{{{a}}}}"
generation_kwargs: {{until: ["<|end_of_thought|>"], do_sample: false, max_gen_toks: 8}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
    ),
    "which": (
        """
task: which
output_type: multiple_choice
doc_to_choice: ["35 pens", "18 eggs"]
doc_to_target: 0
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
    ),
}


@pytest.fixture(scope="module")
def run(
    embedded_settings: Callable[..., ExtractSettings], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A student that begins with a GPT-Neo which has read text, its control on a teacher of random
    weights beside it."""
    folder = tmp_path_factory.mktemp("whole")
    settings = embedded_settings(
        layers=(-1, 0, 2), keep_head=True, codec=("bf16", "-1:klt"), fidelity=("-1:rel=0.05",)
    )
    random = embedded_settings(layers=(-1,), teacher=f"random:3:{EMBEDDED_TEACHER}")
    text = embedded_settings(layers=(0,), limit=20)
    for each in (settings, random, text):
        extract(prepare(each))
    options: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 8,
        "bridge_lr": 2e-3,
        "gpt_neo_lr": 2e-3,
        "device": "cpu",
    }
    train(TrainSettings(cache=text.cache, run=folder / "gpt-neo", condition="none", **options))
    train(
        TrainSettings(
            cache=settings.cache,
            run=folder / "run",
            student=str(folder / "gpt-neo/model"),
            **options,
        ),
        comparisons=("layer-0", "layer-2", "no-teacher", "random-teacher"),
        random_teacher=random.cache,
    )
    return folder / "run"


@pytest.fixture(scope="module")
def task_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    data = write_rows(
        folder / "data.jsonl", [{"q": "Ann has 20 pens. Ann buys 15 pens.", "a": "35"}]
    )
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text((text + SOURCE).format(data=data))
    return folder


@pytest.fixture(scope="module")
def told(run: Path, task_path: Path) -> str:
    """What the command tells, in a process of its own, as a user runs it."""
    arguments = [
        "--run",
        run,
        "--baselines",
        "all",
        "--samples",
        3,
        "--max-new-tokens",
        24,
        "--device",
        "cpu",
    ]
    done = run_process(
        "evaluate", *arguments, "--task", "pens", "--task", "which", "--task-path", task_path
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def results(told: str, run: Path) -> dict[str, Any]:
    """What it finds."""
    found: dict[str, Any] = json.loads((run / "evaluation" / "results.json").read_text())
    return found


def test_the_command_prints_all_results(told: str, results: dict[str, Any], run: Path) -> None:
    lines = told.splitlines()
    assert all(any(name in line for line in lines) for name in NAMES)
    leak = next(each["leak"] for each in results["students"] if each["leaks"])
    assert (
        f"bidirectional, leak: loss {leak['reported']:.4f} as reported, {leak['causal']:.4f}"
        " with causal attention" in lines
    )
    for task, metrics in results["students"][0]["tasks"].items():
        assert (
            f"task {task}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            in lines
        )
    assert results["verdict"] in lines
    assert {f"not measured: {what}: {why}" for what, why in results["not_measured"].items()} <= set(
        lines
    )
    assert lines[-1] == f"report: {run / 'evaluation' / 'report.html'}"


def test_every_control_and_baseline_is_measured(results: dict[str, Any], run: Path) -> None:
    assert [each["name"] for each in results["students"]] == NAMES
    found = {each["name"]: each for each in results["students"]}
    assert {each["kind"] for each in found.values()} == {"student", "control", "layer", "baseline"}
    steps, tokens = found["student"]["steps"], found["student"]["tokens"]
    for name in (
        "layer-0",
        "layer-2",
        "no-teacher",
        "random-teacher",
        "distilled",
        "bidirectional",
    ):
        assert (found[name]["steps"], found[name]["tokens"]) == (steps, tokens)
    assert found["gpt-neo-fine-tuned"]["steps"] == found["gpt-neo-scratch"]["steps"] == steps
    assert (found["gpt-neo-untouched"]["steps"], found["gpt-neo-untouched"]["training_flops"]) == (
        0,
        0,
    )
    for each in found.values():
        assert (
            each["bits_a_byte"] > 0 and 0 <= each["exact_match_interval"][0] <= each["exact_match"]
        )
        assert each["name"] == "teacher" or each["peak_memory"]["host_bytes"] > 1e7
    losses = {name: each["val_loss"] for name, each in found.items()}
    assert losses["teacher"] < 0.05 and losses["student"] < losses["layer-0"]
    assert losses["gpt-neo-fine-tuned"] < losses["gpt-neo-scratch"] < losses["gpt-neo-untouched"]
    assert (
        2e6 < results["extract"]["flops_a_token"] < 4e6
        and results["extract"]["stored_tokens"] > 1000
    )
    assert results["not_measured"] == {
        "answers": "none ended within 24 tokens; raise --max-new-tokens"
    }
    same = [
        found[name]["bits_a_byte"] / found[name]["val_loss"]
        for name in ("student", "layer-0", "distilled", "teacher")
    ]
    assert same == pytest.approx([same[0]] * 4)
    assert RunFolder(run).comparisons().keys() == {*NAMES} - {"student", "teacher"}


def test_the_leak_is_the_loss_added_by_causal_attention(
    results: dict[str, Any],
) -> None:
    found = {each["name"]: each for each in results["students"]}
    leak = found["bidirectional"]["leak"]
    assert (
        found["bidirectional"]["leaks"] and leak["reported"] == found["bidirectional"]["val_loss"]
    )
    assert leak["leaked"] == leak["causal"] - leak["reported"] != 0
    assert "leak" not in found["student"]
    assert "bidirectional" not in results["verdict"]


def test_tasks_are_answered_and_one_that_does_not_exist_costs_nothing(
    results: dict[str, Any], run_cli: RunCli, run: Path
) -> None:
    assert results["students"][0]["tasks"].keys() == {"pens", "which"}
    assert 0 <= results["students"][0]["tasks"]["which"]["acc"] <= 1
    done = run_cli("evaluate", "--run", run, "--samples", 0, "--task", "nosuch")
    assert done.returncode == 2 and "--task nosuch: there is no such task" in done.stderr


def writer_of(run: Path) -> StudentWriter:
    cpu = choose_device("cpu")
    teacher = load_teacher(find_teacher(EMBEDDED_TEACHER), [-1], cpu, "fp32")
    return StudentWriter(RunFolder(run), lambda: teacher, cpu)


def test_a_tasks_prompts_get_the_same_answers_in_batches_in_their_own_order(run: Path) -> None:
    writer = writer_of(run)
    short, long = {"until": "ends", "max_gen_toks": 6}, {"until": ["one", "two"], "max_gen_toks": 9}
    asked = [
        ("Ann has 20 pens.", short),
        ("Ben has 3.", long),
        ("Cara sells 18 of her 40 eggs.", short),
        ("Eva?", short),
    ]
    requests = [SimpleNamespace(args=each) for each in asked]
    alone, together = (adapter(writer, batch).generate_until(requests) for batch in (1, 3))
    assert alone == together
    assert len(set(alone)) > 1


def test_a_task_that_fails_on_its_own_data_says_which(
    run: Path, task_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = HarnessTasks(["pens"], task_path, None)

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("no documents")

    monkeypatch.setattr("lm_eval.simple_evaluate", broken)
    with pytest.raises(
        RunError, match=r"--task: one of pens failed \(ZeroDivisionError: no documents\)"
    ):
        tasks.run(writer_of(run))


def test_a_damaged_cache_is_not_reported_as_a_failed_task(
    run: Path, task_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = HarnessTasks(["pens"], task_path, None)

    def damaged(*_: Any, **__: Any) -> None:
        raise DamagedCacheError("shard 0: changed")

    monkeypatch.setattr("lm_eval.simple_evaluate", damaged)
    with pytest.raises(DamagedCacheError, match="shard 0: changed"):
        tasks.run(writer_of(run))


def test_a_task_or_teacher_that_fails_is_reported_and_the_rest_is_measured(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise InputError("no room for this prompt")

    monkeypatch.setattr(HarnessTasks, "run", fails)
    monkeypatch.setattr(HarnessTasks, "__init__", lambda *_: None)
    monkeypatch.setattr(HarnessTasks, "__bool__", lambda _: True)
    monkeypatch.setattr("pipeline.evaluation.run.TeacherAlone", fails)
    own = shutil.copytree(run, tmp_path / "run")
    found = evaluate(
        EvaluateSettings(run=own, samples=0, baselines=("teacher",), tasks=("any",), device="cpu")
    )
    assert found.not_measured == {
        "tasks": "no room for this prompt",
        "teacher": "no room for this prompt",
    }
    assert [student.name for student in found.students] == [
        "student",
        *RunFolder(own).finished_comparisons(),
    ]


def test_a_control_whose_cache_has_moved_is_found_where_it_is_now(
    results: dict[str, Any], run: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(run, tmp_path / "run")
    control = RunFolder(moved / "comparisons/random-teacher")
    record = control.read_record()
    was = record.settings.cache
    control.write_record(
        replace(record, settings=replace(record.settings, cache=str(tmp_path / "gone")))
    )
    with pytest.raises(
        InputError, match="gone: no cache here; pass its present location as --random-teacher"
    ):
        evaluate(EvaluateSettings(run=moved, samples=0, device="cpu"))
    teacher = shutil.copytree(EMBEDDED_TEACHER, tmp_path / "teacher")
    found = evaluate(
        EvaluateSettings(
            run=moved,
            samples=1,
            max_new_tokens=2,
            random_teacher=was,
            teacher=str(teacher),
            device="cpu",
        )
    )
    losses = {each["name"]: each["val_loss"] for each in results["students"]}
    assert all(
        student.val_loss == pytest.approx(losses[student.name]) for student in found.students
    )


def test_without_the_harness_a_task_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.evaluation.settings.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"not installed; .*pip install .*\[eval\]"):
        HarnessTasks(["gsm8k"], None, None)
    assert not HarnessTasks([], None, None)


def test_the_report_is_self_contained_and_has_its_plots_as_files(
    results: dict[str, Any], run: Path
) -> None:
    page = (run / "evaluation/report.html").read_text()
    assert results["verdict"] in page
    assert all(name in page for name in NAMES)
    for heading in ("Cost", "Leak of the published attention", "Ablations", "lm-evaluation-harness",
                    "Samples", "Codec distortion", "Settings and identity"):  # fmt: skip
        assert heading in page
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page) and "@import" not in page
    for name in ("runs", "loss", "codec--1"):
        assert (run / f"evaluation/{name}.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.skipif(BROWSER is None, reason="no headless Chromium is installed")
@pytest.mark.parametrize("scheme, background", [(0, "rgb(21, 24, 27)"), (1, "rgb(251, 251, 249)")])
@pytest.mark.parametrize("width", [1100, 420])
def test_a_browser_shows_the_page_whole_light_and_dark(
    scheme: int, background: str, width: int, results: dict[str, Any], run: Path, tmp_path: Path
) -> None:
    look = """<script>window.addEventListener("load", () => { document.title = JSON.stringify({
      background: getComputedStyle(document.body).backgroundColor,
      overflow: document.documentElement.scrollWidth - window.innerWidth,
      pictures: [...document.querySelectorAll("svg")].filter(each => each.closest("figure"))
                 .map(each => each.getBoundingClientRect().height),
      fetched: performance.getEntriesByType("resource").length,
      verdict: document.querySelector(".verdict").innerText }) })</script></body>"""
    page = (run / "evaluation/report.html").read_text().replace("</body>", look)
    (tmp_path / "report.html").write_text(page)
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom",
         f"--blink-settings=preferredColorScheme={scheme}", f"--user-data-dir={tmp_path / 'profile'}",
         (tmp_path / "report.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None, done.stderr
    seen = json.loads(title[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))
    assert seen["background"] == background
    assert seen["overflow"] <= 0
    assert seen["fetched"] == 0
    assert len(seen["pictures"]) == 3 and min(seen["pictures"]) > 30
    assert seen["verdict"].split() == results["verdict"].split()


def test_evaluated_runs_are_compared(
    results: dict[str, Any], run: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    record = RunFolder(other).read_record()
    record = replace(record, settings=replace(record.settings, seed=1))
    RunFolder(other).write_record(record)
    evaluated = json.loads((other / "evaluation/results.json").read_text())
    evaluated["students"][0]["val_loss"] += 0.2
    (other / "evaluation/results.json").write_text(json.dumps(evaluated))
    third = shutil.copytree(run, tmp_path / "third")
    RunFolder(third).write_record(replace(record, settings=replace(record.settings, epochs=9)))
    done = run_cli("evaluate", "--compare", run, other, third, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    comparison = json.loads(done.stdout)
    groups = comparison["groups"]
    assert comparison["apart"] == ["epochs"]
    assert [(group["label"], group["seeds"]) for group in groups] == [
        ("epochs 2", [0, 1]),
        ("epochs 9", [1]),
    ]
    loss = groups[0]["rows"][0]["figures"]["val_loss"]
    assert loss["mean"] == pytest.approx(results["students"][0]["val_loss"] + 0.1)
    assert loss["high"] - loss["low"] == pytest.approx(0.2)
    assert "| student | " in (tmp_path / "out/comparison.md").read_text()
    assert "epochs 9" in (tmp_path / "out/comparison.html").read_text()
    shown = run_cli("evaluate", "--compare", run, other, "--out", tmp_path / "out")
    assert "distilled" in shown.stdout
    evaluated["asked"]["samples"] += 1
    (other / "evaluation/results.json").write_text(json.dumps(evaluated))
    asked_otherwise = run_cli("evaluate", "--compare", run, other, "--out", tmp_path / "out")
    assert "not averaged across groups, which differ in: samples" in asked_otherwise.stdout
    assert "which differ in: samples." in (tmp_path / "out/comparison.md").read_text()
    (other / "evaluation/results.json").write_text("[]")
    damaged = run_cli("evaluate", "--compare", run, other, "--out", tmp_path / "out")
    assert damaged.returncode == 2 and "results.json: damaged" in damaged.stderr


def test_texts_that_stop_are_texts_and_a_random_teacher_may_be_the_embedded_one(
    run: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    done = run_cli("generate", "--run", run, "--prompt", "a", "--stop", "")
    assert done.returncode == 2 and "an empty text would end every answer" in done.stderr
    done = run_cli(
        "extract", "--teacher", "random:4", "--limit", 2, "--cache", tmp_path / "c", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert (
        json.loads(run_cli("cache", "inspect", tmp_path / "c", "--json").stdout)["identity"][
            "teacher_weights"
        ]
        == "random:4"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compare"], "--compare: name at least two evaluated runs"),
        (["--compare", "RUN", "RUN"], "a run is named twice"),
        (
            ["--compare", "RUN", "RUN/comparisons/layer-0"],
            "not evaluated yet; evaluate it first: evaluate --run",
        ),
        ([], "name one run with --run"),
        (["--run", "RUN", "RUN"], "name one run with --run"),
        (
            ["--run", "RUN", "--baselines", "nobody"],
            f"--baselines nobody: unknown; choose from teacher, {', '.join(BASELINES)}, or all",
        ),
        (
            ["--run", "RUN/comparisons/no-teacher", "--baselines", "distilled"],
            "a student of --condition none reads no teacher",
        ),
    ],
)
def test_wrong_options_are_refused_with_a_reason(
    arguments: list[str], message: str, run: Path, run_cli: RunCli
) -> None:
    done = run_cli("evaluate", *[word.replace("RUN", str(run)) for word in arguments])
    assert done.returncode == 2
    assert message in done.stderr
