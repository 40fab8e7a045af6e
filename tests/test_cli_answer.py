"""`answer` from the command line: killed and repeated, two writers, reports, and its rows used."""

from __future__ import annotations

import json
import re
import shlex
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.cli_process import CliProcess, run_process
from tests.conftest import ROOT, RunCli

OPTIONS = [
    "--limit", "10", "--samples", "2", "--temperature", "0.8", "--max-new-tokens", "120",
    "--batch-size", "2", "--device", "cpu", "--precision", "fp32",
]  # fmt: skip


def begun(folder: Path, batches: int) -> CliProcess:
    """Return a process that has finished some batches and is still running."""
    process = CliProcess("answer", "--out", folder / "rows.jsonl", *OPTIONS)
    journal = folder / "rows.jsonl.unfinished"
    while process.poll() is None and not (
        journal.exists() and journal.read_bytes().count(b"\n") > batches
    ):
        time.sleep(0.001)
    assert process.poll() is None, process.communicate()[1]
    return process


def test_a_killed_file_is_continued_with_the_same_bytes(tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    process = begun(killed, 2)
    process.kill()
    process.wait()
    assert not (killed / "rows.jsonl").exists()
    done = run_process("answer", "--out", killed / "rows.jsonl", *OPTIONS, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["answers"] == 20
    assert 4 <= result["resumed_answers"] < 20
    whole = run_process("answer", "--out", tmp_path / "whole.jsonl", *OPTIONS)
    assert whole.returncode == 0
    assert (killed / "rows.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_two_processes_cannot_write_one_file(tmp_path: Path) -> None:
    first = begun(tmp_path, 1)
    first.send_signal(signal.SIGSTOP)
    done = run_process("answer", "--out", tmp_path / "rows.jsonl", *OPTIONS)
    assert first.poll() is None
    assert done.returncode == 2
    assert "rows.jsonl: another process is writing this file; wait for it" in done.stderr
    first.kill()
    first.wait()


def test_the_how_to_writes_answers_whose_samples_stay_together(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs/how-to/distil-answers.md").read_text(encoding="utf-8")
    block = re.search(r"```sh\n(.*?)```", page, re.DOTALL)
    assert block is not None
    answer, extract = (shlex.split(line)[1:] for line in block[1].splitlines())
    monkeypatch.chdir(tmp_path)
    done = run_cli(*answer)
    assert done.returncode == 0, done.stderr
    assert "from 40 answers to 20 prompts\nnot kept: " in done.stdout
    assert "score math (the references end in a box or ####); 0 rows without" in done.stdout
    assert run_cli(*answer).stdout.startswith("answers.jsonl (finished earlier): ")
    rows = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert 20 < len(rows) <= 40
    result = json.loads(run_cli(*extract, "--json").stdout)
    assert result["examples"] == len(rows)
    assert result["unread"] == {"id": len(rows)}
    groups = json.loads(Path("my-cache/attachments/groups/groups.json").read_text())
    sizes = Counter(row["group"] for row in rows)
    assert sorted(Counter(groups.values()).values()) == [2] * [*sizes.values()].count(2)


def test_impossible_options_are_refused_in_one_line(run_cli: RunCli, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    for words, expected in (
        (["--out", tmp_path / "rows.csv"], "rows are JSON lines; choose a name in .jsonl"),
        (["--out", out, "--samples", "2"], "--samples 2: without sampling all answers"),
        (["--out", out, "--score", "maths"], "did you mean math?"),
        (["--out", out, "--stop", ""], "--stop: an empty text"),
        (["--out", out, "--teacher", "none.gguf"], "teacher none.gguf: no such file"),
        (["--out", out, "--dataset", "none.jsonl"], "none.jsonl: no such file"),
    ):
        done = run_cli("answer", *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert expected in done.stderr
    assert list(tmp_path.iterdir()) == []
