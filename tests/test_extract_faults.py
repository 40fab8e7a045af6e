"""`extract` from the command line with full and vanishing disks, signals, and two writers."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache import open_cache
from cache.containers.zarr3 import ZarrContainer
from cache.upkeep.verify import verify_cache
from tests.cli_process import CliProcess, run_process
from tests.conftest import RunCli


def on_tmpfs(folder: Path, megabytes: int) -> bool:
    return (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", folder], check=False
        ).returncode
        == 0
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 48 MB; skipped where mounting is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not on_tmpfs(folder, 48):
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=False)


def test_a_small_disk_is_refused_at_the_start_and_a_full_one_gives_one_line(
    small_disk: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [
        "extract",
        "--cache",
        small_disk / "c",
        "--limit",
        200,
        "--layers",
        "-1,0,1,2,3,4",
        "--shard-tokens",
        1500,
        "--dtype",
        "fp32",
        "--device",
        "cpu",
    ]
    done = run_cli(*options)
    assert done.returncode == 2
    assert "its disk has 50.33 MB free" in done.stderr
    assert list(small_disk.iterdir()) == []
    monkeypatch.setattr(
        "pipeline.extract.run.require_room", lambda *_: None
    )  # another program fills the disk while it runs
    (small_disk / "other").write_bytes(bytes(24 << 20))
    done = run_cli(*options)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the disk is full")
    (small_disk / "other").unlink()
    result = json.loads(run_cli(*options, "--json").stdout)
    assert 0 < result["resumed_shards"] < result["shards"]
    assert run_cli("cache", "verify", small_disk / "c").returncode == 0


def test_an_unmounted_disk_ends_the_run_with_one_line(small_disk: Path) -> None:
    """Unmounted under the running command; in the empty mount point nothing can be taken for a
    cache afterwards."""
    process = CliProcess(
        "extract",
        "--cache",
        small_disk / "c",
        "--limit",
        "150",
        "--shard-tokens",
        "200",
        "--dtype",
        "fp32",
        "--device",
        "cpu",
        "--batch-tokens",
        "200",
    )
    journal = small_disk / "c" / "journal.jsonl"
    while process.poll() is None and not (
        journal.exists() and journal.read_bytes().count(b"\n") > 3
    ):
        time.sleep(0.001)
    subprocess.run(["umount", "-l", small_disk], check=True)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 1, stderr
    assert stderr.count("\n") == 1
    assert "was removed or replaced" in stderr or "No such file" in stderr
    assert "repeat the command" in stderr
    assert [
        path
        for path in small_disk.rglob("*")
        if path.suffix in (".json", ".jsonl") and path.name != "zarr.json"
    ] == []


def test_two_extracts_cannot_write_one_cache(tmp_path: Path) -> None:
    options = [
        "--limit",
        "150",
        "--shard-tokens",
        "100",
        "--batch-tokens",
        "100",
        "--dtype",
        "fp32",
        "--device",
        "cpu",
    ]
    first = CliProcess("extract", "--cache", tmp_path / "c", *options)
    while first.poll() is None and not (tmp_path / "c" / "manifest.json").exists():
        time.sleep(0.001)
    for _ in range(5):  # looking is always allowed, whatever the writer renames in the meantime
        assert verify_cache(tmp_path / "c").damage == []
    first.send_signal(signal.SIGSTOP)  # holds its lock however long the others take
    for words in (
        ["extract", "--cache", tmp_path / "c", *options],
        ["cache", "repair", tmp_path / "c"],
    ):
        done = run_process(*words)
        assert first.poll() is None, "the first was done too soon to be in the way"
        assert done.returncode == 2
        assert "another process is writing to this cache" in done.stderr
    first.kill()
    first.wait()
    assert run_process("extract", "--cache", tmp_path / "c", *options).returncode == 0


def test_a_full_disk_gets_one_line_and_the_extract_resumes(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [
        "extract",
        "--cache",
        tmp_path / "c",
        "--limit",
        20,
        "--shard-tokens",
        500,
        "--device",
        "cpu",
        "--dtype",
        "fp32",
    ]
    plain, written = ZarrContainer.write, []

    def write(self: ZarrContainer, path: Path, *rest: object) -> None:
        written.append(path)
        if len(written) == 3:
            path.mkdir()
            (path / "half").write_bytes(b"x")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        plain(self, path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ZarrContainer, "write", write)
    done = run_cli(*options)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the disk is full")
    assert len(done.stderr.splitlines()) == 1
    again = json.loads(run_cli(*options, "--json").stdout)
    assert again["resumed_shards"] == 2
    assert len(open_cache(tmp_path / "c")) == 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_with_a_line_on_how_to_continue(
    number: signal.Signals, tmp_path: Path
) -> None:
    process = CliProcess(
        "extract", "--cache", tmp_path / "c", "--shard-tokens", "200", "--device", "cpu"
    )
    until = time.monotonic() + 120
    while (
        not list((tmp_path / "c").glob("shards/0*"))
        and process.poll() is None
        and time.monotonic() < until
    ):
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    assert stderr.strip().splitlines()[-1].startswith("error: stopped")
    assert "Traceback" not in stderr
