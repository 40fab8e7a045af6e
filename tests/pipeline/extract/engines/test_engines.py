"""All engines write the same cache, also when a worker dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cache.upkeep.verify import verify_cache
from tests.cli_process import CliProcess, run_process
from tests.conftest import ROOT, RunCli

OPTIONS = [
    *("--limit", "160"),
    *("--shard-tokens", "600"),
    *("--layers", "-1,0"),
    *("--dtype", "fp32"),
    *("--device", "cpu"),
]
KLT = ["--codec", "klt", "--bits", "3", "--calibration-tokens", "2000"]
RAY = ["--engine", "ray", "--workers", "2"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    done = run_process(
        "extract", "--cache", tmp_path_factory.mktemp("local") / "c", *OPTIONS, "--json"
    )
    return str(json.loads(done.stdout)["content_digest"])


def torchrun(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [*TORCHRUN, str(ROOT / "cli.py"), "extract", "--cache", str(folder), *OPTIONS, *more]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False
    )


def children_of(process: int, name: str) -> list[int]:
    """Return the descendants of a process whose command line begins with a name."""
    listed = subprocess.run(
        ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    tree = {process}
    while children := {int(pid) for pid, parent, _ in rows if int(parent) in tree} - tree:
        tree |= children
    return [int(pid) for pid, _, args in rows if int(pid) in tree and args.startswith(name)]


@pytest.mark.slow
def test_ray_writes_the_same_cache_although_an_actor_is_killed(tmp_path: Path, digest: str) -> None:
    process = CliProcess("extract", "--cache", tmp_path / "c", *OPTIONS, *RAY, "--json")
    journal = tmp_path / "c" / "journal.jsonl"
    actors: list[int] = []
    while process.poll() is None and not (
        journal.exists() and journal.read_bytes().count(b"\n") > 3 and len(actors) == 2
    ):
        time.sleep(0.01)
        actors = children_of(process.pid, "ray::ShardActor")
    assert len(actors) == 2
    os.kill(actors[0], signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["content_digest"] == digest
    assert verify_cache(tmp_path / "c").damage == []


@pytest.mark.slow
def test_ray_fits_the_same_codecs_and_reports_errors_in_one_line(tmp_path: Path) -> None:
    local = run_process("extract", "--cache", tmp_path / "local", *OPTIONS, *KLT, "--json")
    by_ray = run_process("extract", "--cache", tmp_path / "ray", *OPTIONS, *KLT, *RAY, "--json")
    assert json.loads(by_ray.stdout)["content_digest"] == json.loads(local.stdout)["content_digest"]
    failed = run_process(
        "extract", "--cache", tmp_path / "x", *OPTIONS, "--codec", "klt", "--bits", "0.0001", *RAY
    )
    assert (failed.returncode, len(failed.stderr.splitlines())) == (2, 1)
    assert "every step gives more than bits=0.0001" in failed.stderr
    assert not (tmp_path / "x").exists()
    too_many = run_process(
        "extract", "--cache", tmp_path / "x", *OPTIONS, "--engine", "ray", "--workers", "1000"
    )
    assert (too_many.returncode, len(too_many.stderr.splitlines())) == (2, 1)


def test_torchrun_writes_and_resumes_the_same_cache(tmp_path: Path, digest: str) -> None:
    done = torchrun(tmp_path / "c", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["content_digest"] == digest
    journal = tmp_path / "c" / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:4]))
    again = json.loads(torchrun(tmp_path / "c", "--json").stdout)
    assert (again["content_digest"], again["resumed_shards"]) == (digest, 3)
    failed = torchrun(tmp_path / "c", "--seed-that-does-not-exist")
    assert failed.returncode != 0


def test_an_engine_that_is_not_available_is_refused_in_one_line(
    run_cli: RunCli, tmp_path: Path
) -> None:
    for words, message in {
        ("--engine", "torchrun"): "torchrun has not started this process",
        ("--workers", "2"): "--workers is for --engine ray",
        ("--address", "auto"): "--address is for --engine ray",
    }.items():
        done = run_cli("extract", "--cache", tmp_path / "c", *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert message in done.stderr


def test_only_one_of_torchruns_processes_prints_the_plan(tmp_path: Path) -> None:
    done = torchrun(tmp_path / "c", "--plan", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["examples"] == 160


def test_without_ray_the_error_says_how_to_install_it(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['ray'] = None; sys.argv = ['cli', *sys.argv[1:]]; from cli import"
        " main; main()"
    )
    words = ["extract", "--cache", str(tmp_path / "c"), "--limit", "5", "--engine", "ray"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip().endswith("pip install -c constraints.txt '.[ray]'")
