"""Ways in which a cache breaks, for the fault suite and the soak."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from cache import files

KINDS = ["manifest", "journal", "attachment", "metadata", "values"]


def files_of(root: Path) -> dict[str, list[Path]]:
    """The files of a cache, by what they are."""
    found: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path.stat().st_size):
        top = path.relative_to(root).parts[0]
        if top == "shards":
            found["metadata" if path.name == "zarr.json" else "values"].append(path)
        elif top == "attachments":
            found["attachment"].append(path)
        elif top != ".lock":
            found["manifest" if top == "manifest.json" else "journal"].append(path)
    return {kind: paths for kind, paths in found.items() if paths}


def flip_byte(path: Path, rng: random.Random) -> int:
    """Change one byte anywhere in a file to any other value; returns where."""
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    content[place] ^= rng.randrange(1, 256)
    path.write_bytes(content)
    return place


def shard_paths(root: Path) -> list[Path]:
    """The shards' files or folders, in their order."""
    return sorted((root / "shards").iterdir())


def remove(path: Path) -> None:
    """A file or a folder."""
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
    """Fail the n-th call that makes something durable or visible, before it does anything."""
    count = [0]

    def counted(plain: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] == call:
                raise failure()
            return plain(*arguments, **options)

        return wrapped

    of_files = {name: counted(getattr(files, name)) for name in ("fsync_path", "publish")}
    with mock.patch.multiple(files, **of_files), mock.patch.object(os, "fsync", counted(os.fsync)):
        yield count
