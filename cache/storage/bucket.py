"""The objects below an address, put and got whole: a thin layer over obstore that speaks of
caches."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from cache.errors import CacheError

_AT_ONCE = 16
"""Requests under way at a time."""
_PART = 8 << 20
"""Bytes of a request; larger files are put and got in parts."""
_CLIENT: Any = {"allow_http": True, "timeout": "60s"}
_NO_BUCKET = "NoSuchBucket"
_METADATA_SERVICE = "169.254.169.254"
"""Asked for credentials on Amazon's machines where the environment has none."""
_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (for a public bucket AWS_SKIP_SIGNATURE=true)"
)


class TakenError(Exception):
    """An object was to be made, or replaced as it was known, and another process has done so in
    between."""


class Bucket:
    """All objects whose names begin with a prefix; names are relative to it."""

    def __init__(self, address: str, endpoint: str | None) -> None:
        """Name a bucket; nothing is asked of it yet. Credentials come from the environment, as
        AWS's own tools read them.

        Args:
            address: `s3://bucket/prefix`.
            endpoint: of an S3-compatible server; None: AWS's, or what the environment says.

        Raises:
            CacheError: the address is not one of a bucket with a prefix.
        """
        bucket, _, prefix = address.removeprefix("s3://").strip("/").partition("/")
        if not bucket or not prefix or any(part in ("", ".", "..") for part in prefix.split("/")):
            raise CacheError(
                f"{address}: write s3://bucket/prefix, where the cache is to be all that lies below"
                " the prefix"
            )
        if endpoint is not None and not re.fullmatch(r"https?://[^/\s]+(/\S*)?", endpoint):
            raise CacheError(
                f"--endpoint {endpoint}: is no URL of a server; write https://host or"
                " http://host:port"
            )
        self.address, self.endpoint = address, endpoint
        self._has_answered, self._is_patient = False, True
        options: Any = {} if endpoint is None else {"endpoint": endpoint}
        if "AWS_REGION" not in os.environ and "AWS_DEFAULT_REGION" not in os.environ:
            options["region"] = "us-east-1"
        try:
            self._stores = [
                S3Store(
                    bucket,
                    prefix=prefix,
                    config=options,
                    retry_config=retries,
                    client_options=_CLIENT,
                )
                for retries in (
                    _retries(5, timedelta(seconds=10)),
                    _retries(30, timedelta(seconds=45)),
                )
            ]
        except (BaseError, ValueError) as error:
            raise CacheError(f"{address}: {_first_line(error)}") from error

    @property
    def _store(self) -> S3Store:
        """Patient with a server that has answered before; one that never has may have been named
        wrongly."""
        return self._stores[self._has_answered and self._is_patient]

    def impatient(self) -> Bucket:
        """The same, for requests that need not be sent again for long."""
        same = Bucket(self.address, self.endpoint)
        same._is_patient = False
        return same

    def sizes(self, below: str = "") -> dict[str, int]:
        """Bytes of all objects below a name, or of the one of that very name."""
        with self._told():
            found = {
                item["path"]: item["size"]
                for page in obstore.list(self._store, below or None)
                for item in page
            }
            if not found and below:
                with contextlib.suppress(FileNotFoundError):
                    found[below] = obstore.head(self._store, below)["size"]
            return found

    def entries(self) -> set[str]:
        """First parts of the names of all objects."""
        with self._told():
            found = obstore.list_with_delimiter(self._store)
            return {*found["common_prefixes"], *(item["path"] for item in found["objects"])}

    def get(self, name: str) -> bytes | None:
        """An object's bytes; None where there is none of that name."""
        found = self.get_tagged(name)
        return None if found is None else found[0]

    def get_tagged(self, name: str) -> tuple[bytes, str] | None:
        """An object's bytes, with a tag that changes whenever it is replaced."""
        with self._told():
            try:
                answer = obstore.get(self._store, name)
                return bytes(answer.bytes()), str(answer.meta["e_tag"])
            except FileNotFoundError as error:
                if _NO_BUCKET in str(error):
                    raise
                return None

    def get_all(self, names: Iterable[str]) -> dict[str, bytes | None]:
        """Several objects at a time, as `get`."""
        names = list(names)
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return dict(zip(names, threads.map(self.get, names), strict=True))

    def put(self, name: str, content: bytes) -> None:
        """Put an object, wholly or not at all, whatever is there."""
        with self._told():
            obstore.put(self._store, name, content, chunk_size=_PART)

    def put_if(self, name: str, content: bytes, tag: str | None) -> str:
        """Put an object only where there is none yet (`tag` None), or still the one of this tag;
        the new tag.

        Raises:
            TakenError: there is another one.
        """
        with self._told():
            try:
                put = obstore.put(
                    self._store, name, content, mode="create" if tag is None else {"e_tag": tag}
                )
            except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:
                if (there := self.get_tagged(name)) is not None and there[0] == content:
                    return there[1]  # an answer was lost on its way, and the same put sent again
                raise TakenError(name) from error
            return str(put["e_tag"])

    def upload(self, folder: Path, names: Iterable[str]) -> None:
        """Put files of a folder, several at a time."""

        def one(name: str) -> None:
            with self._told():
                obstore.put(self._store, name, folder / name, chunk_size=_PART)

        _all_of(one, names)

    def download(
        self,
        sizes: Mapping[str, int],
        targets: Mapping[str, Path],
        unwanted: Callable[[], bool] = lambda: False,
    ) -> None:
        """Bring objects of known sizes into files that have these sizes already, in parts, several
        at a time.

        Raises:
            OSError: an object has gone, or cannot be read, or is `unwanted` after all.
        """

        def one(part: tuple[str, int, int]) -> None:
            name, start, stop = part
            if unwanted():
                raise InterruptedError(errno.EINTR, "not wanted any longer", name)
            with self._told():
                content = obstore.get_range(self._store, name, start=start, end=stop)
            with targets[name].open("r+b") as stream:
                stream.seek(start)
                stream.write(content)

        _all_of(
            one,
            (
                (name, start, min(start + _PART, size))
                for name, size in sizes.items()
                for start in range(0, size, _PART)
            ),
        )

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are not there are no error."""
        with self._told(), contextlib.suppress(FileNotFoundError):
            if doomed := list(names):
                obstore.delete(self._store, doomed)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong, in words of this project."""
        try:
            yield
            self._has_answered = True
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise CacheError(f"{self.address}: access is denied; {_CREDENTIALS}") from error
        except (BaseError, FileNotFoundError) as error:
            if _NO_BUCKET in str(error):
                raise CacheError(
                    f"{self.address}: there is no such bucket; make it first, or name another"
                ) from error
            if isinstance(error, FileNotFoundError):
                raise
            if _METADATA_SERVICE in str(error):
                raise CacheError(
                    f"{self.address}: no credentials were found; {_CREDENTIALS}"
                ) from error
            raise OSError(
                errno.EIO, f"the object store does not answer ({_first_line(error)})", self.address
            ) from error


def _retries(most: int, timeout: timedelta) -> Any:
    backoff = {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=5),
        "base": 2.0,
    }
    return {"max_retries": most, "retry_timeout": timeout, "backoff": backoff}


def _all_of(work: Any, items: Iterable[Any]) -> None:
    """Do all work, several pieces at a time, or raise what the first that failed did."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        futures = [threads.submit(work, item) for item in items]
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()


def _first_line(error: BaseException) -> str:
    """An error of obstore's is a page; its first sentences tell."""
    return " ".join(str(error).split("\n\n")[0].split())[:300]
