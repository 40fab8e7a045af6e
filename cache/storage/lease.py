"""The lease: the exclusive right to write to an object store.

The object `.lock` names the holder. The holder replaces it every `SECONDS / 4`, and stops writing
`SECONDS` after it sent the last successful replacement, by a monotonic clock. Others may take the
lease when it is older than `SECONDS + _RESOLUTION` by the server's clock: its `Last-Modified` is
compared with that of an object put just now. So the machines' wall clocks do not matter, only the
server's. If that jumps ahead by more than 45 s between two renewals, a live lease can be taken; the
holder notices at its next renewal. If it jumps back, a dead holder's lease lasts that much longer.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from types import TracebackType

from cache.errors import CacheError
from cache.sealed_json import canonical_json
from cache.storage.bucket import Bucket, ConflictError
from cache.storage.conditional_put import PROBE, require_conditional_put
from cache.storage.process_identity import has_died, this_process

NAME = ".lock"
SECONDS = 60.0
"""Duration of a lease without renewal."""
_RESOLUTION = 1.0
"""`Last-Modified` is in whole seconds."""


def clock() -> float:
    """Return seconds of a monotonic clock that includes time while the machine is suspended."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Lease:
    """A lease on a bucket's prefix, renewed in the background.

    If its holder dies, it expires after a minute, or at once for processes of the same machine.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._etag: str | None = None
        self._deadline = 0.0
        self._deadlines: dict[bytes, float] = {}
        self._lost = False
        self._done = threading.Event()
        self._renewing: threading.Thread | None = None
        self._nonce = uuid.uuid4().hex

    def __enter__(self) -> Lease:
        """Take the lease.

        Raises:
            CacheError: another process has it, or the server has no conditional puts.
            OSError: the object store cannot be reached.
        """
        require_conditional_put(self._bucket)
        etag = _etag_to_replace(self._bucket)
        try:
            self._put(etag)
        except ConflictError:
            raise _taken(self._bucket, "just now") from None
        except OSError:
            self._release()  # the put may have succeeded although its response was lost
            raise
        self._renewing = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewing.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the lease; it expires if the store does not answer."""
        self._done.set()
        if not self._lost and not isinstance(error, OSError):
            if self._renewing is not None:
                self._renewing.join()
            self._release()
        self._lost = True

    def require_valid(self) -> None:
        """Check that no other process may write.

        Raises:
            CacheError: the lease has expired, was taken, or was released.
        """
        if self._lost or clock() > self._deadline:
            raise CacheError(
                f"{self._bucket.address}: the right to write was lost (the store did not answer for"
                f" {SECONDS:.0f} s, or another process took over); run the same command again to"
                " continue"
            )

    def _put(self, etag: str | None) -> None:
        deadline = clock() + SECONDS  # from before the request, so it ends before the server's
        until = time.time() + SECONDS  # for people; no process reads it
        content = canonical_json({"holder": this_process(), "until": until, "nonce": self._nonce})
        self._deadlines[content] = deadline
        self._etag = self._bucket.put_if(NAME, content, etag)
        self._deadline, self._deadlines = deadline, {content: deadline}

    def _renew(self) -> None:
        while not self._done.wait(SECONDS / 4):
            try:
                self._put(self._etag)
            except ConflictError:
                if not self._is_ours():
                    self._lost = True
                    return
            except (OSError, CacheError):  # the server may answer again before the lease expires
                continue

    def _is_ours(self) -> bool:
        """Read the lease back: a put may have succeeded although its response was lost."""
        with contextlib.suppress(OSError, CacheError):
            stored = self._bucket.get_stored(NAME)
            if stored is not None and stored.content in self._deadlines:
                self._etag, self._deadline = stored.etag, self._deadlines[stored.content]
                return True
        return False

    def _release(self) -> None:
        """Delete the lease if it is valid: then no other process can have taken it."""
        with contextlib.suppress(OSError, CacheError):
            if self._is_ours() and clock() < self._deadline:
                self._bucket.delete([NAME])


def require_free(bucket: Bucket) -> None:
    """Fail if another process has the lease.

    Raises:
        CacheError: another process has it.
        OSError: the object store cannot be reached.
    """
    _etag_to_replace(bucket)


def _etag_to_replace(bucket: Bucket) -> str | None:
    """Return the ETag of an expired lease; None if there is no lease.

    Raises:
        CacheError: it has not expired.
    """
    stored = bucket.get_stored(NAME)
    if stored is None:
        return None
    if not stored.content:  # the lock file of a cache copied from a folder
        return stored.etag
    try:
        holder = dict(json.loads(stored.content)["holder"])
    except (ValueError, TypeError, KeyError):
        raise CacheError(
            f"{bucket.address}: its object {NAME!r} is not a lease of this project; delete it if"
            " no process is writing"
        ) from None
    if has_died(holder):
        return stored.etag
    left = SECONDS + _RESOLUTION - (_server_time(bucket) - stored.modified)
    if left >= 0:
        raise _taken(
            bucket,
            f"process {holder.get('pid')} on {holder.get('host')}, whose lease expires in"
            f" {left:.0f} s unless renewed",
        )
    return stored.etag


def _server_time(bucket: Bucket) -> float:
    """Return the server's date of an object put now, in seconds since the epoch."""
    name = f"{PROBE}{uuid.uuid4().hex}"
    try:
        bucket.put(name, b"time")
        stored = bucket.get_stored(name)
        if stored is None:
            raise OSError(f"{bucket.address}: an object put just now is missing")
        return stored.modified
    finally:
        with contextlib.suppress(OSError, CacheError):
            bucket.delete([name])


def _taken(bucket: Bucket, holder: str) -> CacheError:
    return CacheError(
        f"{bucket.address}: another process is writing to this cache ({holder}); wait for it or"
        " stop it"
    )
