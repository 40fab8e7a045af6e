"""Objects below a prefix of a bucket: a thin layer over obstore with this project's errors."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from cache.errors import CacheError
from cache.storage.store_errors import first_paragraph, is_missing_bucket, translated_errors

_CONCURRENCY = 16
_PART_BYTES = 8 << 20
"""Size of the parts in which larger files are transferred."""
_CLIENT: Any = {"allow_http": True, "timeout": "60s"}


class ConflictError(Exception):
    """A conditional put failed because another process created or replaced the object."""


class StoredObject(NamedTuple):
    """An object returned by the server.

    Attributes:
        etag: changes whenever the object is replaced.
        modified: time of the put by the server's clock, in seconds since the epoch.
    """

    content: bytes
    etag: str
    modified: float


class Bucket:
    """The objects whose names begin with a prefix; all names are relative to it."""

    def __init__(self, address: str, endpoint: str | None) -> None:
        """Send no request yet. Credentials come from the environment, as for AWS's own tools.

        Args:
            address: `s3://bucket/prefix`.
            endpoint: of an S3-compatible server; None: from the environment, or AWS.

        Raises:
            CacheError: the address is not a bucket with a prefix.
        """
        bucket, _, prefix = address.removeprefix("s3://").strip("/").partition("/")
        if not bucket or not prefix or any(part in ("", ".", "..") for part in prefix.split("/")):
            raise CacheError(
                f"{address}: not a bucket with a prefix; write s3://bucket/prefix, and keep nothing"
                " but the cache below the prefix"
            )
        if endpoint is not None and not re.fullmatch(r"https?://[^/\s]+(/\S*)?", endpoint):
            raise CacheError(
                f"--endpoint {endpoint}: not the URL of a server; write https://host or"
                " http://host:port"
            )
        self.address, self.endpoint = address, endpoint
        self._has_answered, self._retries_long = False, True
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
            raise CacheError(f"{address}: {first_paragraph(error)}") from error

    @property
    def _store(self) -> S3Store:
        """The store to use; retries last long only once the server has answered."""
        return self._stores[self._has_answered and self._retries_long]

    def with_few_retries(self) -> Bucket:
        """Return the same bucket with short retries."""
        same = Bucket(self.address, self.endpoint)
        same._retries_long = False
        return same

    def sizes(self, below: str = "") -> dict[str, int]:
        """Return the sizes of all objects below a name, or of the object with exactly that name."""
        with self._translated_errors():
            sizes = {
                item["path"]: item["size"]
                for page in obstore.list(self._store, below or None)
                for item in page
            }
            if not sizes and below:
                with contextlib.suppress(FileNotFoundError):
                    sizes[below] = obstore.head(self._store, below)["size"]
            return sizes

    def top_level_names(self) -> set[str]:
        """Return the first parts of the names of all objects."""
        with self._translated_errors():
            listing = obstore.list_with_delimiter(self._store)
            return {*listing["common_prefixes"], *(item["path"] for item in listing["objects"])}

    def get(self, name: str) -> bytes | None:
        """Return an object's content; None if there is no such object."""
        stored = self.get_stored(name)
        return None if stored is None else stored.content

    def get_stored(self, name: str) -> StoredObject | None:
        """Return an object with its ETag and date; None if there is no such object."""
        with self._translated_errors():
            try:
                answer = obstore.get(self._store, name)
                content = bytes(answer.bytes())
            except FileNotFoundError as error:
                if is_missing_bucket(error):
                    raise
                return None
            meta = answer.meta
            return StoredObject(content, str(meta["e_tag"]), meta["last_modified"].timestamp())

    def get_all(self, names: Iterable[str]) -> dict[str, bytes | None]:
        """Return the contents of several objects, fetched concurrently."""
        names = list(names)
        with ThreadPoolExecutor(_CONCURRENCY) as threads:
            return dict(zip(names, threads.map(self.get, names), strict=True))

    def put(self, name: str, content: bytes) -> None:
        """Create or replace an object, atomically."""
        with self._translated_errors():
            obstore.put(self._store, name, content, chunk_size=_PART_BYTES)

    def put_if(self, name: str, content: bytes, etag: str | None) -> str:
        """Create an object (`etag` None), or replace the one with that ETag; return the new ETag.

        Raises:
            ConflictError: the object exists, or has another ETag.
        """
        with self._translated_errors():
            mode: Any = "create" if etag is None else {"e_tag": etag}
            try:
                put = obstore.put(self._store, name, content, mode=mode)
            except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:
                stored = self.get_stored(name)
                if stored is not None and stored.content == content:
                    return stored.etag  # this put succeeded, but its response was lost
                raise ConflictError(name) from error
            return str(put["e_tag"])

    def upload(self, folder: Path, names: Iterable[str]) -> None:
        """Put files of a folder, concurrently."""

        def upload_file(name: str) -> None:
            with self._translated_errors():
                obstore.put(self._store, name, folder / name, chunk_size=_PART_BYTES)

        _run_all(upload_file, names)

    def download(
        self,
        sizes: Mapping[str, int],
        targets: Mapping[str, Path],
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Download objects into files that already have the objects' sizes, in concurrent parts.

        Raises:
            OSError: an object is missing or unreadable, or the download was cancelled.
        """

        def download_part(part: tuple[str, int, int]) -> None:
            name, start, stop = part
            if cancelled():
                raise InterruptedError(errno.EINTR, "download cancelled", name)
            with self._translated_errors():
                content = obstore.get_range(self._store, name, start=start, end=stop)
            with targets[name].open("r+b") as stream:
                stream.seek(start)
                stream.write(content)

        _run_all(
            download_part,
            (
                (name, start, min(start + _PART_BYTES, size))
                for name, size in sizes.items()
                for start in range(0, size, _PART_BYTES)
            ),
        )

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects that may be missing."""
        with self._translated_errors(), contextlib.suppress(FileNotFoundError):
            if targets := list(names):
                obstore.delete(self._store, targets)

    @contextlib.contextmanager
    def _translated_errors(self) -> Iterator[None]:
        with translated_errors(self.address):
            yield
            self._has_answered = True


def _retries(count: int, timeout: timedelta) -> Any:
    backoff = {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=5),
        "base": 2.0,
    }
    return {"max_retries": count, "retry_timeout": timeout, "backoff": backoff}


def _run_all(work: Callable[[Any], None], items: Iterable[Any]) -> None:
    """Call `work` on all items concurrently; raise the first error and cancel the rest."""
    with ThreadPoolExecutor(_CONCURRENCY) as threads:
        futures = [threads.submit(work, item) for item in items]
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()
