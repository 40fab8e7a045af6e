"""Whoever runs the teacher, the cache is the same; whoever dies while running it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache import open_cache
from cache.upkeep.verify import verify_cache
from pipeline.extract.engines.queue import ShardQueue
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from tests.cli_process import CliProcess, run_process
from tests.conftest import ROOT, RunCli, write_rows

OPTIONS = [
    "--limit",
    "160",
    "--shard-tokens",
    "600",
    "--layers",
    "-1,0",
    "--dtype",
    "fp32",
    "--device",
    "cpu",
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
    """Processes below one whose command line begins with a name."""
    listed = subprocess.run(
        ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    below = {process}
    while new := {int(pid) for pid, parent, _ in rows if int(parent) in below} - below:
        below |= new
    return [int(pid) for pid, _, args in rows if int(pid) in below and args.startswith(name)]


@pytest.mark.slow
def test_ray_actors_make_the_same_cache_though_one_is_killed(tmp_path: Path, digest: str) -> None:
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
def test_ray_fits_codecs_and_ends_with_one_line_where_a_worker_fails(
    tmp_path: Path, run_cli: RunCli
) -> None:
    local = run_process("extract", "--cache", tmp_path / "local", *OPTIONS, *KLT, "--json")
    by_ray = run_process("extract", "--cache", tmp_path / "ray", *OPTIONS, *KLT, *RAY, "--json")
    assert json.loads(by_ray.stdout)["content_digest"] == json.loads(local.stdout)["content_digest"]
    failed = run_process(
        "extract", "--cache", tmp_path / "x", *OPTIONS, "--codec", "klt", "--bits", "0.0001", *RAY
    )
    assert (failed.returncode, len(failed.stderr.splitlines())) == (2, 1)
    assert "every step gives more than bits=0.0001" in failed.stderr
    assert not (tmp_path / "x").exists()
    busy = run_process(
        "extract", "--cache", tmp_path / "x", *OPTIONS, "--engine", "ray", "--workers", "1000"
    )
    assert (busy.returncode, len(busy.stderr.splitlines())) == (2, 1)


def test_torchruns_ranks_make_the_same_cache_and_go_on_with_one(
    tmp_path: Path, digest: str
) -> None:
    done = torchrun(tmp_path / "c", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["content_digest"] == digest
    journal = tmp_path / "c" / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:4]))
    again = json.loads(torchrun(tmp_path / "c", "--json").stdout)
    assert (again["content_digest"], again["resumed_shards"]) == (digest, 3)
    failed = torchrun(tmp_path / "c", "--seed-that-does-not-exist")
    assert failed.returncode != 0


def test_an_engine_that_is_not_to_be_had_is_told_in_one_line(
    run_cli: RunCli, tmp_path: Path
) -> None:
    for words, said in {
        ("--engine", "torchrun"): "torchrun has not started this process",
        ("--workers", "2"): "--workers is for --engine ray",
        ("--address", "auto"): "--address is for --engine ray",
    }.items():
        done = run_cli("extract", "--cache", tmp_path / "c", *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert said in done.stderr


def test_a_plan_is_told_once_however_many_processes_torchrun_starts(tmp_path: Path) -> None:
    done = torchrun(tmp_path / "c", "--plan", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["examples"] == 160


def test_without_ray_it_is_said_how_to_get_it(tmp_path: Path) -> None:
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


def test_a_shard_of_duplicates_waits_for_the_one_that_stores_their_text(
    embedded_settings: Callable[..., ExtractSettings], tmp_path: Path
) -> None:
    texts = [f"What is {number} plus {number * 7}? " * 12 for number in range(6)]
    rows = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": "It depends."}]
        for text in texts
    ]
    path = write_rows(
        tmp_path / "rows.jsonl",
        [{"messages": row} for row in [*rows, rows[0], *rows[1:5], rows[0]]],
    )
    prepared = prepare(embedded_settings(dataset=str(path), limit=None, shard_tokens=1))
    assert [sorted(ShardQueue(prepared, {}).dependencies(shard)) for shard in range(12)] == [
        []
    ] * 6 + [
        [0],
        [1],
        [2],
        [3],
        [4],
        [0],
    ]
    published: dict[int, Any] = {}
    queue = ShardQueue(prepared, published)
    assert [queue.take() for _ in range(7)] == [0, 1, 2, 3, 4, 5, None]
    result = extract(prepared)
    with open_cache(result.cache) as cache:
        published[0] = cache.records[0]
        queue.mark_published(0)
        assert [queue.take() for _ in range(3)] == [6, 11, None]
        queue.give_back(11)
        assert (queue.take(), len(queue), queue.unusable) == (11, 11, set())
