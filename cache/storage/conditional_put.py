"""Checking that a server supports conditional puts: some S3 servers ignore the conditions."""

from __future__ import annotations

import contextlib
import re
import uuid

from cache.errors import CacheError
from cache.storage.bucket import Bucket, ConflictError

PROBE = ".lock.probe-"
"""Prefix of the names of test objects, which are not part of a cache."""


def require_conditional_put(bucket: Bucket) -> None:
    """Put a test object several times, and check that the server refuses the right requests.

    Raises:
        CacheError: it does not; names the server and the defect.
        OSError: the object store cannot be reached.
    """
    bucket = bucket.with_few_retries()  # retrying does not change a refusal
    name = f"{PROBE}{uuid.uuid4().hex}"
    try:
        if defect := _defect(bucket, name):
            raise CacheError(
                f"{bucket.address}: the server {bucket.endpoint or 'of this bucket'} {defect}, so"
                " concurrent writers cannot be excluded; use a server with conditional puts, or"
                " write the cache into a folder and copy it"
            )
    finally:
        with contextlib.suppress(OSError, CacheError):
            bucket.delete([name])


def _defect(bucket: Bucket, name: str) -> str | None:
    try:
        etag = bucket.put_if(name, b"first", None)
    except ConflictError:
        return "refuses a put with If-None-Match although there is no object"
    except OSError as error:
        status = _refusal(error)
        bucket.put(name, b"plain")  # if this fails too, conditions are not the problem
        return f"refuses a put with If-None-Match ({status})"
    if _succeeds(bucket, name, b"second", None):
        return "ignores If-None-Match in a put"
    try:
        if not _succeeds(bucket, name, b"third", etag):
            return "does not recognise its own ETag in a put with If-Match"
    except OSError as error:
        return f"refuses a put with If-Match ({_refusal(error)})"
    return "ignores If-Match in a put" if _succeeds(bucket, name, b"fourth", etag) else None


def _refusal(error: OSError) -> str:
    """Return the status of a refused request.

    Raises:
        OSError: the server did not refuse it, but is unreachable or too busy.
    """
    status = re.search(r"status code: ((?:4(?!29)\d\d|501)\b[\w ]*)", str(error.strerror))
    if status is None:
        raise error
    return status[1]


def _succeeds(bucket: Bucket, name: str, content: bytes, etag: str | None) -> bool:
    try:
        bucket.put_if(name, content, etag)
    except ConflictError:
        return False
    return True
