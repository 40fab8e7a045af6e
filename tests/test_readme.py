"""The README's commands run as written, and its figures are recorded measurements."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_process import run_process
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def demo_commands() -> list[list[str]]:
    """Return the commands of each demo: of the student of sequences, and of the one of prompts."""
    return [
        block.strip().splitlines() for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    ]


def test_readme_shows_the_main_commands() -> None:
    for command in ("extract", "train", "evaluate", "generate"):
        assert re.search(rf"^llm-modules {command} --", README, re.MULTILINE), command
    for target in ("make demo", "make test"):
        assert re.search(rf"^{target} ", README, re.MULTILINE), target


def test_readme_figures_are_in_the_log() -> None:
    recorded = (ROOT / "docs/LOG.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .*nats per token.*\n\| ---.*\n((?:\|.*\n)+)", README, re.MULTILINE)
    assert len(rows) == 2
    figures = [
        row.strip("| ").replace("*", "").split(" | ")[-2:]
        for table in rows
        for row in table.splitlines()
    ]
    assert len(figures) == 6
    for loss, correct in figures:
        assert f"| {loss} | {correct} % |" in recorded, (loss, correct)


def test_the_makefile_runs_the_readmes_commands() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^demo:.*?\n\n", makefile, re.DOTALL | re.MULTILINE)
    assert recipe is not None
    lines = [line.strip() for line in recipe.group().splitlines() if "$(RUN)" in line]
    commands = [
        line.replace("$(RUN) cli.py", "llm-modules").replace("$(RUN) -m", "python -m")
        for line in lines
    ]
    assert commands == [command for block in demo_commands() for command in block]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("block, run", [(0, "demo/run"), (1, "demo/prompt-run")])
def test_the_demo_shows_transfer(block: int, run: str, tmp_path: Path) -> None:
    """Run the commands in an empty folder; the student must clearly beat both controls."""
    for command in demo_commands()[block]:
        program, *words = shlex.split(command)
        if program == "python":
            subprocess.run(
                [sys.executable, *words],
                cwd=tmp_path,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                check=True,
            )
            continue
        assert program == "llm-modules"
        process = run_process(*words, folder=tmp_path)
        assert process.returncode == 0, process.stderr
    assert "Transferred:" in process.stdout
    results = json.loads((tmp_path / run / "evaluation/results.json").read_text())
    student, *controls = results["students"]
    assert [control["name"] for control in controls] == ["layer-0", "no-teacher"]
    for control in controls:
        assert control["steps"] == student["steps"]
        assert student["val_loss"] < 0.5 * control["val_loss"]
        assert student["exact_match"] > control["exact_match"] + 0.3
    if block == 0:
        assert {control["tokens"] for control in controls} == {student["tokens"]}
    page = (tmp_path / run / "evaluation/report.html").read_text()
    assert "Transferred" in page
    assert "<svg" in page
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page)
