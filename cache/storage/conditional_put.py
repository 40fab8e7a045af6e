"""Whether a server keeps writers apart: some that speak S3 ignore the conditions of a put, and then
a lease is none."""

from __future__ import annotations

import contextlib
import re
import uuid

from cache.errors import CacheError
from cache.storage.bucket import Bucket, TakenError

PROBE = ".lock.probe-"
"""How the names of the objects begin by which this is found out; one can be left behind, and is
part of no cache."""


def require_conditional_put(bucket: Bucket) -> None:
    """Put a small object a few times under a name of its own, and see that the server refuses what
    it should.

    Raises:
        CacheError: it does not, or does not know such puts; names the server and what it lacks.
        OSError: the object store cannot be reached.
    """
    bucket = bucket.impatient()  # a server that refuses goes on refusing
    name = f"{PROBE}{uuid.uuid4().hex}"
    try:
        if lack := _what_lacks(bucket, name):
            raise CacheError(
                f"{bucket.address}: the server {bucket.endpoint or 'of this bucket'} {lack}, so two"
                " writers could not be kept apart; use one that knows conditional puts, or write"
                " the cache into a folder and copy it there"
            )
    finally:
        with contextlib.suppress(OSError, CacheError):
            bucket.delete([name])


def _what_lacks(bucket: Bucket, name: str) -> str | None:
    try:
        tag = bucket.put_if(name, b"first", None)
    except TakenError:
        return "refuses a put with If-None-Match where nothing is there"
    except OSError as error:
        status = _require_refused(error)
        bucket.put(name, b"plain")  # where this fails, too, it is no matter of conditions
        return f"refuses a put with If-None-Match ({status})"
    if _is_put(bucket, name, b"second", None):
        return "ignores If-None-Match in a put"
    try:
        if not _is_put(bucket, name, b"third", tag):
            return "does not know its own ETag in a put with If-Match"
    except OSError as error:
        return f"refuses a put with If-Match ({_require_refused(error)})"
    return "ignores If-Match in a put" if _is_put(bucket, name, b"fourth", tag) else None


def _require_refused(error: OSError) -> str:
    """The status with which a server has refused a request.

    Raises:
        OSError: it was not refused: the server cannot be reached, or is too busy.
    """
    status = re.search(r"status code: ((?:4(?!29)\d\d|501)\b[\w ]*)", str(error.strerror))
    if status is None:
        raise error
    return status[1]


def _is_put(bucket: Bucket, name: str, content: bytes, tag: str | None) -> bool:
    try:
        bucket.put_if(name, content, tag)
    except TakenError:
        return False
    return True
