"""One evaluation with everything: controls, baselines, tasks, plots. It takes a minute."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.training.run import train
from tests.cli_process import run_process
from tests.conftest import write_rows
from tests.pipeline.short_runs import short_run

SOURCE = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
doc_to_text: "{{{{q}}}}"
"""
TASKS = {
    "pens": """
task: pens
output_type: generate_until
doc_to_target: "{{{{a}}}}"
generation_kwargs: {{until: ["<|end_of_thought|>"], do_sample: false, max_gen_toks: 8}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
""",
    "which": """
task: which
output_type: multiple_choice
doc_to_choice: ["35 pens", "18 eggs"]
doc_to_target: 0
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
""",
}


@dataclass(frozen=True)
class WholeEvaluation:
    """An evaluated run: its folder, the command's stdout, and results.json."""

    run: Path
    stdout: str
    results: dict[str, Any]

    @property
    def students(self) -> dict[str, dict[str, Any]]:
        """Results of the student, comparison runs and teacher, by name."""
        return {student["name"]: student for student in self.results["students"]}


@pytest.fixture(scope="session")
def controlled_run(
    embedded_settings: Callable[..., ExtractSettings], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a student of a GPT-Neo trained on text, with a control on a random teacher."""
    folder = tmp_path_factory.mktemp("whole")
    settings = embedded_settings(
        layers=(-1, 0, 2), keep_head=True, codec=("bf16", "-1:klt"), fidelity=("-1:rel=0.05",)
    )
    random = embedded_settings(layers=(-1,), teacher=f"random:3:{EMBEDDED_TEACHER}")
    text = embedded_settings(layers=(0,), limit=20)
    for cache in (settings, random, text):
        extract(prepare(cache))
    train(short_run(Path(str(text.cache)), folder / "gpt-neo", condition="none", epochs=2))
    student = str(folder / "gpt-neo/model")
    train(
        short_run(Path(str(settings.cache)), folder / "run", student=student, epochs=2),
        comparisons=("layer-0", "layer-2", "no-teacher", "random-teacher"),
        random_teacher=random.cache,
    )
    return folder / "run"


@pytest.fixture(scope="session")
def task_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two tasks of lm-evaluation-harness."""
    folder = tmp_path_factory.mktemp("tasks")
    data = write_rows(
        folder / "data.jsonl", [{"q": "Ann has 20 pens. Ann buys 15 pens.", "a": "35"}]
    )
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text((text + SOURCE).format(data=data))
    return folder


@pytest.fixture(scope="session")
def whole(controlled_run: Path, task_path: Path) -> WholeEvaluation:
    """Evaluate in a separate process, as a user does."""
    done = run_process(
        *("evaluate", "--run", controlled_run, "--baselines", "all", "--samples", 3),
        *("--max-new-tokens", 24, "--device", "cpu"),
        *("--task", "pens", "--task", "which", "--task-path", task_path),
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((controlled_run / "evaluation" / "results.json").read_text())
    return WholeEvaluation(controlled_run, done.stdout, results)
