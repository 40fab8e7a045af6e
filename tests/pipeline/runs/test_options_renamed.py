"""Settings of release 0.1 are read under their present names."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.option import with_current_names
from pipeline.runs.folder import RunFolder
from tests.cli_process import ROOT
from tests.conftest import RunCli


def test_stored_settings_get_their_present_names() -> None:
    stored = {"gpt_neo_lr": 0.02, "freeze": ["gpt-neo", "bridge"], "seed": 1}
    expected = {"student_lr": 0.02, "freeze": ["student", "bridge"], "seed": 1}
    assert with_current_names(stored) == with_current_names(expected) == expected
    run = RunFolder(ROOT / "tests" / "fixtures" / "run-0.1" / "run")
    assert run.settings().student_lr == 0.02


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_options_have_their_former_names_too(
    command: str, run_cli: RunCli, small_cache: Path, tmp_path: Path
) -> None:
    run = "--run" if command == "train" else "--runs"
    same = [command, "--cache", small_cache, run, tmp_path / "run", "--device", "cpu"]
    same += ["--max-steps", 1, *(["--vary", "gpt-neo-lr=0 1e-3"] if command == "sweep" else [])]
    file = tmp_path / "former.yaml"
    file.write_text("gpt-neo-lr: 0.003\nfreeze: [gpt-neo]\n" if command == "train" else "seed: 1\n")
    done = run_cli(*same, "--config", file)
    assert done.returncode == 0, done.stderr
    if command == "train":
        settings = RunFolder(tmp_path / "run").settings()
        assert (settings.student_lr, settings.freeze) == (0.003, ("student",))
        written = (tmp_path / "run" / "train.yaml").read_text()
        assert "student-lr: 0.003" in written and "gpt-neo" not in written
        other = run_cli(*same, "--resume", "--gpt-neo-lr", 0.003, "--freeze", "gpt-neo")
        assert other.returncode == 0, other.stderr
    else:
        names = sorted(path.name for path in (tmp_path / "run").glob("student-lr=*"))
        assert names == ["student-lr=0.0", "student-lr=0.001"]
