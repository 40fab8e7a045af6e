"""Durable files, their checksums, and names that stay inside their folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

import xxhash

from cache.errors import CacheError, DamagedCacheError

_BLOCK = 1 << 20
_NOT_FOR_FOLDERS = {
    errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EBADF,
    errno.EISDIR, errno.EACCES, errno.EPERM,
}  # fmt: skip
"""Errors of file systems that cannot sync folders; a failing or full disk raises others."""
REPAIR = "repair it with `cache repair`"


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


def fsync_path(path: Path) -> None:
    """Make a file's bytes, or a folder's entries, durable.

    Many file systems (CIFS, shares of virtual machines, some in user space) cannot sync a folder;
    that is ignored. A failing disk is not.

    Raises:
        OSError: the bytes may not be durable; names the path.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _NOT_FOR_FOLDERS and path.is_dir():
            return
        raise OSError(error.errno, error.strerror, str(path)) from error  # fsync names no path


def copy_contents(source: Path, target: Path) -> None:
    """Copy a folder's files and links, without times and modes, which many file systems refuse."""
    for path in files_below(source):
        copied = target / path.relative_to(source)
        copied.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_dir() or path.is_symlink():
            shutil.copyfile(path, copied, follow_symlinks=False)


def fsync_tree(path: Path) -> None:
    """Make a file, or a folder with its content, durable."""
    if path.is_dir():
        for entry in sorted(path.iterdir()):
            fsync_tree(entry)
    fsync_path(path)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file completely or not at all."""
    staged = path.with_name(f"{path.name}.partial")
    remove(staged)
    with staged.open("xb") as stream:  # x: never through an existing link
        stream.write(content)
    publish(staged, path)


def publish(staged: Path, final: Path) -> None:
    """Rename a finished file or folder to its final name, durably."""
    fsync_tree(staged)
    staged.replace(final)
    fsync_path(final.parent)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def bytes_below(path: Path) -> int:
    """Return the size of all files at or below a path; other processes may change them."""
    total = 0
    for file in files_below(path):
        with contextlib.suppress(FileNotFoundError):
            total += file.lstat().st_size
    return total


def files_below(path: Path) -> Iterator[Path]:
    """Yield every file at or below a path, in the order of names; links are not followed.

    Another process may write there: a folder that disappears counts as empty.
    """
    if path.is_dir() and not path.is_symlink():
        try:
            entries = sorted(path.iterdir())
        except FileNotFoundError:
            return
        for entry in entries:
            yield from files_below(entry)
    else:
        yield path


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    return _hexdigest(path, hashlib.sha256())


def checksum_of(path: Path) -> str:
    """Return the 128-bit XXH3 of a file's bytes, several times faster than SHA-256."""
    return _hexdigest(path, xxhash.xxh3_128())


def _hexdigest(path: Path, digest: _Hash) -> str:
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def inside(root: Path, name: str) -> Path:
    """Return the path of a file named by a manifest or journal, which must be inside the cache.

    Raises:
        CacheError: the name is absolute, climbs out, or passes through a symbolic link.
    """
    pure = PurePosixPath(name)
    if (
        not name
        or pure.is_absolute()
        or "\\" in name
        or "\0" in name
        or any(part in ("..", ".") for part in name.split("/"))
    ):
        raise CacheError(
            f"{root}: the cache names a file outside its folder ({name!r}); do not use this cache"
        )
    path = root
    for part in pure.parts:
        path = path / part
        try:
            linked = path.is_symlink()
        except (OSError, ValueError) as error:
            raise CacheError(f"{root}: {name!r} cannot be the name of a file ({error})") from error
        if linked:
            raise CacheError(f"{root}: {name!r} is a symbolic link; a cache has only plain files")
    return path


def damage_of(root: Path, name: str, size: int, checksum: str | None) -> str | None:
    """Return a published file's damage, found by size and checksum; None if it is intact.

    Args:
        root: the cache's folder.
        name: the file's name relative to it.
        size: in bytes.
        checksum: from `checksum_of`; None to compare only the size.

    Raises:
        CacheError: the name leaves the cache.
    """
    path = inside(root, name)
    try:
        if not path.is_file():
            return "missing"
        if path.stat().st_size != size:
            return f"{path.stat().st_size} bytes where {size} were written"
        if checksum is not None and checksum_of(path) != checksum:
            return "its bytes have changed since they were written (checksum differs)"
    except OSError as error:  # such as a bad sector
        return f"cannot be read ({error.strerror})"
    return None


def check_file(root: Path, name: str, size: int, checksum: str | None) -> None:
    """Refuse a file that has changed since it was published.

    Raises:
        DamagedCacheError: it is missing, cut, or its bytes have changed.
    """
    if damage := damage_of(root, name, size, checksum):
        raise DamagedCacheError(f"{root / name}: {damage}; {REPAIR}")
