"""File systems with fewer features than a local disk: network shares, virtual machines, FUSE."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest

from cache import CacheError, open_cache, write_cache
from cache.containers import CONTAINER_NAMES
from cache.files import fsync_path, write_atomically
from cache.lock import WriterLock, require_unlocked
from cache.storage.local_copies import LocalCopies
from tests.cache.examples import (
    make_attachments,
    make_cache,
    make_content,
    make_manifest,
    make_shards,
)

SHARDS = make_shards([[5, 3], [4]])
UNSUPPORTED = [
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EBADF,
    errno.ENOSYS,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
]
FAILED = [errno.EIO, errno.ENOSPC, errno.EDQUOT]


def refuse_sync(patch: pytest.MonkeyPatch, number: int, *, folders: bool) -> None:
    """Let syncing folders, or files, fail."""
    plain = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == folders:
            raise OSError(number, os.strerror(number))
        plain(descriptor)

    patch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("number", UNSUPPORTED)
@pytest.mark.parametrize("container", CONTAINER_NAMES)
def test_a_folder_that_cannot_be_synced_is_ignored(
    container: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_sync(monkeypatch, number, folders=True)
    with open_cache(make_cache(tmp_path / "c", SHARDS, container)) as cache:
        assert len(cache) == 3


@pytest.mark.parametrize("number", UNSUPPORTED)
def test_a_folder_that_cannot_be_opened_for_syncing_is_ignored(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = os.open

    def opened(path: Path, flags: int, *rest: int) -> int:
        if Path(path).is_dir() and flags == os.O_RDONLY:
            raise OSError(number, os.strerror(number), str(path))
        return plain(path, flags, *rest)

    monkeypatch.setattr(os, "open", opened)
    fsync_path(tmp_path)


@pytest.mark.parametrize("number", FAILED)
def test_a_failing_disk_is_an_error_that_names_the_folder(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_sync(monkeypatch, number, folders=True)
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        fsync_path(tmp_path)
    assert (raised.value.errno, raised.value.filename) == (number, str(tmp_path))


@pytest.mark.parametrize("number", [*UNSUPPORTED, *FAILED])
def test_a_file_that_cannot_be_synced_is_an_error_that_names_it(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_sync(monkeypatch, number, folders=False)
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        write_atomically(tmp_path / "file", b"content")
    assert raised.value.filename == str(tmp_path / "file.partial")
    assert not (tmp_path / "file").exists()


def test_a_journal_that_cannot_be_synced_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(OSError, match="Input/output error") as raised,
        write_cache(
            tmp_path / "c", make_manifest(SHARDS), make_attachments(tmp_path / "x")
        ) as writer,
    ):
        monkeypatch.setattr(
            "cache.durable_lines.os.fsync",
            lambda descriptor: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")),
        )
        monkeypatch.setattr("cache.files.fsync_path", lambda path: None)
        writer.publish(0, make_content(SHARDS[0]))
    assert raised.value.filename is not None
    assert str(tmp_path / "c") in str(raised.value.filename)


def refuse_locks(patch: pytest.MonkeyPatch, number: int) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    patch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize(
    "number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL]
)
def test_without_locks_nothing_is_written_and_the_error_names_a_remedy(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_locks(monkeypatch, number)
    (tmp_path / "c").mkdir()
    with pytest.raises(
        CacheError,
        match=f"^{tmp_path / 'c'}: its file system has no locks .*; choose a folder on another one",
    ):
        WriterLock(tmp_path / "c").__enter__()
    with pytest.raises(CacheError, match="has no locks"):
        require_unlocked(tmp_path / "c")
    with pytest.raises(CacheError, match="has no locks"):
        make_cache(tmp_path / "c", SHARDS, "zarr")
    copies = LocalCopies(tmp_path / "copies", "one", 1000)
    with pytest.raises(
        CacheError,
        match=f"{tmp_path / 'copies'}/one/locks: its file system has no locks .*with --copies",
    ):
        copies.lock("000000.zarr")


def test_a_denied_lock_means_another_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_locks(monkeypatch, errno.EACCES)
    with pytest.raises(CacheError, match="another process is writing"):
        WriterLock(tmp_path).__enter__()


def test_any_other_lock_failure_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_locks(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error") as raised:
        WriterLock(tmp_path).__enter__()
    assert raised.value.filename == str(tmp_path)


def test_a_share_without_times_and_modes_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    attachments = make_attachments(tmp_path / "x")
    for name in ("utime", "chmod", "setxattr"):
        monkeypatch.setattr(os, name, refused)
    with write_cache(tmp_path / "c", make_manifest(SHARDS), attachments) as writer:
        for shard, examples in enumerate(SHARDS):
            writer.publish(shard, make_content(examples))
    with open_cache(tmp_path / "c") as cache:
        assert len(cache) == 3
