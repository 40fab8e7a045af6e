"""Faults of a cache, for the fault tests and the soak."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from cache import files as cache_files

KINDS = ["manifest", "journal", "attachment", "metadata", "values"]


def files_of(root: Path) -> dict[str, list[Path]]:
    """Return the files of a cache, by kind."""
    files: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path.stat().st_size):
        top = path.relative_to(root).parts[0]
        if top == "shards":
            files["metadata" if path.name == "zarr.json" else "values"].append(path)
        elif top == "attachments":
            files["attachment"].append(path)
        elif top != ".lock":
            files["manifest" if top == "manifest.json" else "journal"].append(path)
    return {kind: paths for kind, paths in files.items() if paths}


def flip_byte(path: Path, rng: random.Random) -> int:
    """Change a random byte of a file, and return its position."""
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    content[place] ^= rng.randrange(1, 256)
    path.write_bytes(content)
    return place


def shard_paths(root: Path) -> list[Path]:
    """Return the shards' files or folders, in order."""
    return sorted((root / "shards").iterdir())


def remove(path: Path) -> None:
    """Remove a file or folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def swap(left: Path, right: Path) -> None:
    """Exchange two files or folders."""
    aside = left.with_name("aside")
    left.rename(aside)
    right.rename(left)
    aside.rename(right)


class Crash(BaseException):
    """The simulated death of a process."""


@contextmanager
def failing_at(call: int, failure: Callable[[], BaseException]) -> Iterator[list[int]]:
    """Fail the n-th call that syncs or publishes a file, before it has an effect."""
    count = [0]

    def counted(plain: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] == call:
                raise failure()
            return plain(*arguments, **options)

        return wrapped

    counters = {name: counted(getattr(cache_files, name)) for name in ("fsync_path", "publish")}
    with (
        mock.patch.multiple(cache_files, **counters),
        mock.patch.object(os, "fsync", counted(os.fsync)),
    ):
        yield count
