"""Tasks of lm-evaluation-harness: answered in batches, and errors named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cache import DamagedCacheError
from pipeline.device import choose_device
from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.errors import InputError, RunError
from pipeline.evaluation.harness import HarnessTasks, adapter
from pipeline.generation.writer import StudentWriter
from pipeline.runs.folder import RunFolder
from pipeline.teacher.load import load_teacher
from pipeline.teacher.source import find_teacher
from tests.conftest import RunCli
from tests.pipeline.evaluation.conftest import WholeEvaluation


@pytest.fixture
def writer(controlled_run: Path) -> StudentWriter:
    cpu = choose_device("cpu")
    teacher = load_teacher(find_teacher(EMBEDDED_TEACHER), [-1], cpu, "fp32")
    return StudentWriter(RunFolder(controlled_run), lambda: teacher, cpu)


def test_the_student_is_measured_on_every_task(whole: WholeEvaluation) -> None:
    tasks = whole.students["student"]["tasks"]
    assert tasks.keys() == {"pens", "which"}
    assert tasks["which"]["acc"] in (0, 1)  # of one document


def test_an_unknown_task_is_refused(controlled_run: Path, run_cli: RunCli) -> None:
    done = run_cli("evaluate", "--run", controlled_run, "--samples", 0, "--task", "nosuch")
    assert done.returncode == 2
    assert "--task nosuch: there is no such task" in done.stderr


def test_answers_do_not_depend_on_batching_and_keep_their_order(writer: StudentWriter) -> None:
    short, long = {"until": "ends", "max_gen_toks": 6}, {"until": ["one", "two"], "max_gen_toks": 9}
    requests = [
        SimpleNamespace(args=arguments)
        for arguments in (
            ("Ann has 20 pens.", short),
            ("Ben has 3.", long),
            ("Cara sells 18 of her 40 eggs.", short),
            ("Eva?", short),
        )
    ]
    alone, together = (adapter(writer, batch).generate_until(requests) for batch in (1, 3))
    assert alone == together
    assert len(set(alone)) > 1


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            lambda: ZeroDivisionError("no documents"),
            RunError,
            r"--task: one of pens failed \(ZeroDivisionError: no documents\)",
        ),
        (
            lambda: DamagedCacheError("shard 0: changed"),
            DamagedCacheError,
            "^shard 0: changed$",
        ),
    ],
    ids=["of the task", "of the cache"],
)
def test_errors_of_a_task_name_it_and_those_of_a_cache_do_not(
    error: Callable[[], Exception],  # an instance would keep its frames, and with them the teacher
    kind: type[Exception],
    message: str,
    writer: StudentWriter,
    task_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = HarnessTasks(["pens"], task_path, None)

    def fails(*_: Any, **__: Any) -> None:
        raise error()

    monkeypatch.setattr("lm_eval.simple_evaluate", fails)
    with pytest.raises(kind, match=message):
        tasks.run(writer)


def test_tasks_without_the_harness_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.evaluation.settings.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"not installed; .*pip install .*\[eval\]"):
        HarnessTasks(["gsm8k"], None, None)
    assert not HarnessTasks([], None, None)
