"""A grid of runs from one cache: each combination once, finished ones kept, the best first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.conftest import RunCli

QUICK = ["--device", "cpu", "--batch-size", "8", "--max-steps", "2", "--eval-every", "1"]


def test_a_grid_is_trained_compared_and_resumed(
    run_cli: RunCli, small_cache: Path, tmp_path: Path
) -> None:
    command = ["sweep", "--cache", small_cache, "--runs", tmp_path / "runs", *QUICK]
    command += ["--vary", "layers=-1 0 0,-1"]
    first = run_cli(*command, "--vary", "gate=channel none")
    assert first.returncode == 0, first.stderr
    outcome = json.loads((tmp_path / "runs" / "sweep.json").read_text())
    assert "vary" in yaml.safe_load((tmp_path / "runs" / "sweep.yaml").read_text())
    assert outcome["varied"] == ["layers", "gate"]
    assert [run["varied"] for run in outcome["runs"]] == [
        {"layers": layers, "gate": gate}
        for layers in ("-1", "0", "0,-1")
        for gate in ("channel", "none")
    ]
    for run in outcome["runs"]:
        record = json.loads((tmp_path / "runs" / run["run"] / "run.json").read_text())
        assert record["settings"]["gate"] == run["varied"]["gate"]
        assert ",".join(map(str, record["settings"]["layers"])) == run["varied"]["layers"]
        assert record["result"]["best_val_loss"] == run["best_val_loss"]
        assert record["result"]["steps"] == 2
    losses = sorted(run["best_val_loss"] for run in outcome["runs"])
    shown = [
        line
        for line in first.stdout.splitlines()
        if f"{losses[0]:.4f}" in line or f"{losses[-1]:.4f}" in line
    ]
    assert f"{losses[0]:.4f}" in shown[0]
    assert (tmp_path / "runs" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/run.json")}
    wider = run_cli(*command, "--vary", "gate=channel none scalar", "--json")
    assert len(json.loads(wider.stdout)["runs"]) == 9
    # finished runs were not trained again
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_diverging_combination_does_not_stop_the_others(
    run_cli: RunCli, small_cache: Path, tmp_path: Path
) -> None:
    command = ["sweep", "--cache", small_cache, "--runs", tmp_path / "runs", *QUICK]
    done = run_cli(*command, "--log-every", "1", "--clip", "1e30", "--vary", "bridge-lr=1e30 1e-3")
    assert done.returncode == 0, done.stderr
    assert "failed: bridge-lr=1e_30" in done.stdout
    first, second = json.loads((tmp_path / "runs" / "sweep.json").read_text())["runs"]
    assert "loss is" in first["failed"]
    assert second["steps"] == 2


def test_invalid_combinations_are_refused_before_the_first_run(
    run_cli: RunCli, small_cache: Path, tmp_path: Path
) -> None:
    command = ["sweep", "--cache", small_cache, "--runs", tmp_path / "runs", *QUICK]
    for options, message in [
        (["--vary", "layers=-1 5"], "not layer 5"),
        (["--vary", "gate=none", "--vary", "gate=channel"], "is varied twice"),
        (["--vary", "batch-tokens=500 900"], "--batch-size and --batch-tokens"),
        (["--vary", "copies-gb=1 2"], "not an option of train"),
    ]:
        done = run_cli(*command, *options)
        assert (done.returncode, done.stdout) == (2, ""), options
        assert message in done.stderr
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ("gates=none", "'gates' is not an option of train that can be varied"),
        ("gate=", "needs different values"),
        ("gate=none none", "needs different values"),
        ("gate=sideways", "is not one of"),
        ("cross-layers=x", "is not a valid integer"),
    ],
)
def test_an_invalid_grid_is_refused(
    vary: str, message: str, run_cli: RunCli, small_cache: Path, tmp_path: Path
) -> None:
    done = run_cli("sweep", "--cache", small_cache, "--runs", tmp_path / "runs", "--vary", vary)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()
