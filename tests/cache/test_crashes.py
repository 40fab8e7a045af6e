"""Writers that die: by kill -9 at random moments, and at each call that changes the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from cache import CacheError, open_cache, write_cache
from cache.containers import CONTAINER_NAMES
from cache.journal import scan_journal
from cache.upkeep.verify import verify_cache
from tests.cache.examples import (
    make_attachments,
    make_cache,
    make_content,
    make_manifest,
    make_shards,
    same_example,
)
from tests.cache.faults import Crash, failing_at
from tests.conftest import ROOT

SHARDS = make_shards([[5, 3], [4], [7, 1], [600]])
KILLS = 32

# Prints "ready" before it writes, so that the kill interrupts writing, not the start of Python.
WRITER = """
import sys
from pathlib import Path
from tests.cache.examples import make_cache, make_shards
shards = make_shards([[30, 3, 50]] * 60)
print("ready", flush=True)
make_cache(Path(sys.argv[1]), shards, sys.argv[2])
print("done", flush=True)
"""


def start_writer(root: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(root), name]
    writer = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n", writer.communicate()
    return writer


@pytest.mark.parametrize("name", CONTAINER_NAMES)
def test_kill_9_at_any_moment_loses_only_the_unfinished_shard(name: str, tmp_path: Path) -> None:
    """Kill at KILLS / 2 random moments per container; resume the same cache, then begin another."""
    rng, expected = random.Random(name), make_shards([[30, 3, 50]] * 60)
    whole = open_cache(make_cache(tmp_path / "whole", expected, name)).content_digest
    root, kills, rounds = tmp_path / "round-0", 0, 0
    while kills < KILLS // 2:
        before = set(scan_journal(root).records) if root.is_dir() else set()
        writer = start_writer(root, name)
        time.sleep(rng.random() * (0.5 if name == "zarr" else 0.2))
        writer.kill()
        finished = "done" in writer.communicate()[0]
        kills += not finished
        records = scan_journal(root).records if (root / "journal.jsonl").exists() else {}
        assert before <= set(records), "a published shard is lost"
        assert sorted(records) == list(range(len(records)))
        if (root / "manifest.json").exists():
            assert verify_cache(root).damage == []
        unfinished = {path.name for path in (root / "shards").glob("*")} - {
            Path(f).parts[1] for r in records.values() for f in r.files
        }
        # one staged, and one renamed but not in the journal
        assert len(unfinished) <= 2, "more than the unfinished shard is lost"
        if finished or len(records) == len(expected):
            assert open_cache(root).content_digest == whole
            rounds += 1
            root = tmp_path / f"round-{rounds}"
    make_cache(root, expected, name)
    assert open_cache(root).content_digest == whole
    assert verify_cache(root).whole


def moments(folder: Path, name: str) -> list[int]:
    """Return the first and last calls of a write, and some in between."""
    with failing_at(-1, Crash) as count:
        make_cache(folder / "counted", SHARDS[:2], name)
    between = random.Random(name).sample(range(5, count[0] - 1), 18)
    return sorted({1, 2, 3, 4, *between, count[0] - 1, count[0]})


@pytest.mark.parametrize(
    "failure",
    [
        Crash,
        lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        lambda: OSError(errno.EIO, "I/O"),
    ],
    ids=["crash", "disk full", "I/O error"],
)
@pytest.mark.parametrize("name", CONTAINER_NAMES)
def test_a_write_failing_at_any_call_loses_nothing(
    name: str, failure: Callable[[], BaseException], tmp_path: Path
) -> None:
    whole = open_cache(make_cache(tmp_path / "whole", SHARDS[:2], name)).content_digest
    for call in moments(tmp_path, name):
        root = tmp_path / f"c{call}"
        with pytest.raises((Crash, OSError)), failing_at(call, failure):
            make_cache(root, SHARDS[:2], name)
        # complete only if the last line was written, but not synced
        with contextlib.suppress(CacheError):
            assert open_cache(root).content_digest == whole
        if (root / "manifest.json").exists():
            assert verify_cache(root).damage == []
        assert open_cache(make_cache(root, SHARDS[:2], name)).content_digest == whole


def test_a_half_written_journal_line_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full in the middle of the line; the same writer can try again."""
    root, disk_is_full = tmp_path / "c", False
    plain_open = Path.open

    class FullDisk:
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

        def write(self, line: bytes) -> int:
            return int(self._stream.write(line[:50] if disk_is_full else line))

    def opened(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        stream = plain_open(path, mode, *arguments, **options)
        return FullDisk(stream) if (path.name, mode) == ("journal.jsonl", "r+b") else stream

    monkeypatch.setattr(Path, "open", opened)
    with write_cache(root, make_manifest(SHARDS), make_attachments(root)) as writer:
        before = (root / "journal.jsonl").read_bytes()
        disk_is_full = True
        with pytest.raises(OSError, match="No space"):
            writer.publish(0, make_content(SHARDS[0]))
        assert (root / "journal.jsonl").read_bytes() == before
        disk_is_full = False
        for shard, examples in enumerate(SHARDS):
            writer.publish(shard, make_content(examples))
    assert verify_cache(root).whole


def test_a_failed_shard_frees_its_disk_space(tmp_path: Path) -> None:
    root = make_cache(tmp_path / "c", SHARDS, publish=[0])
    with (
        pytest.raises(OSError, match="No space"),
        mock.patch("cache.shard.writer.publish", side_effect=OSError(errno.ENOSPC, "No space")),
    ):
        make_cache(root, SHARDS)
    assert [path.name for path in (root / "shards").iterdir()] == ["000000.zarr"]


@pytest.mark.parametrize("name", CONTAINER_NAMES)
def test_a_removed_folder_is_an_error_and_nothing_is_written_elsewhere(
    name: str, tmp_path: Path
) -> None:
    """As if a disk is unmounted under a writer: the path is then another, empty folder."""
    root = tmp_path / "c"
    make_cache(root, SHARDS, name, publish=[0])
    with write_cache(root, make_manifest(SHARDS, name), make_attachments(root)) as writer:
        root.rename(tmp_path / "unmounted")
        root.mkdir()
        with pytest.raises(FileNotFoundError, match="removed or replaced"):
            writer.publish(1, make_content(SHARDS[1]))
    assert list(root.iterdir()) == []
    root.rmdir()
    (tmp_path / "unmounted").rename(root)
    store = open_cache(make_cache(root, SHARDS, name))
    assert all(
        same_example(*pair)
        for pair in zip(store, [e for shard in SHARDS for e in shard], strict=True)
    )
