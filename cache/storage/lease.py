"""One writer at a time where there are no locks: an object that its holder renews, and that runs
out when its holder dies."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from cache.errors import CacheError
from cache.sealed_json import canonical_json
from cache.storage.bucket import Bucket, TakenError
from cache.storage.conditional_put import require_conditional_put

NAME = ".lock"
SECONDS = 60.0
"""How long a lease lasts that is not renewed. Clocks of machines may differ by less than half of
it."""


class Lease:
    """The right to write below a bucket's prefix. A holder that dies loses it after a minute; on
    its own machine, at once."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._tag: str | None = None
        self._until = 0.0
        self._lost = False
        self._done = threading.Event()
        self._renewing: threading.Thread | None = None
        self._nonce = uuid.uuid4().hex

    def __enter__(self) -> Lease:
        """Take the lease.

        Raises:
            CacheError: another process has it, or the server cannot keep processes apart.
            OSError: the object store cannot be reached.
        """
        require_conditional_put(self._bucket)
        tag = _free_tag(self._bucket)
        try:
            self._put(tag)
        except TakenError:
            raise _taken(self._bucket, "just now") from None
        except OSError:
            self._give_back()  # the answer may have been lost, and not the lease
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
        """Give the lease back; where the store does not answer it runs out by itself."""
        self._done.set()
        if not self._lost and not isinstance(error, OSError):
            if self._renewing is not None:
                self._renewing.join()
            self._give_back()

    def _give_back(self) -> None:
        """While it lasts nobody else can have taken it between the look and the removal."""
        with contextlib.suppress(OSError, CacheError):
            if self._is_ours() and time.time() < self._until:
                self._bucket.delete([NAME])

    def _is_ours(self) -> bool:
        """Look at the lease, and know its tag: the answer to an earlier put may have been lost."""
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            if (found := self._bucket.get_tagged(NAME)) is not None:
                told = json.loads(found[0])
                if told["nonce"] == self._nonce:
                    self._tag, self._until = found[1], float(told["until"])
                    return True
        return False

    def require_held(self) -> None:
        """Make sure that nobody else may write.

        Raises:
            CacheError: the lease has run out, or another process has taken it.
        """
        if self._lost or time.time() > self._until:
            raise CacheError(
                f"{self._bucket.address}: the right to write was lost (the store did not answer for"
                f" {SECONDS:.0f} s, or another process took over); run the same command again to"
                " go on"
            )

    def _put(self, tag: str | None) -> None:
        until = time.time() + SECONDS
        content = {"holder": _this_process(), "until": until, "nonce": self._nonce}
        self._tag = self._bucket.put_if(NAME, canonical_json(content), tag)
        self._until = until

    def _renew(self) -> None:
        while not self._done.wait(SECONDS / 4):
            try:
                self._put(self._tag)
            except TakenError:
                if not self._is_ours():
                    self._lost = True
                    return
            except (OSError, CacheError):  # it may answer again before the lease has run out
                continue


def require_free(bucket: Bucket) -> None:
    """Find out whether another process holds the lease.

    Raises:
        CacheError: it does.
        OSError: the object store cannot be reached.
    """
    _free_tag(bucket)


def _free_tag(bucket: Bucket) -> str | None:
    """The tag of a lease that has run out; None where there is none.

    Raises:
        CacheError: it has not run out.
    """
    found = bucket.get_tagged(NAME)
    if found is None:
        return None
    content, tag = found
    if not content:  # a folder's lock, that was copied here with all else
        return tag
    try:
        told = json.loads(content)
        holder, until = dict(told["holder"]), float(told["until"])
    except (ValueError, TypeError, KeyError):
        raise CacheError(
            f"{bucket.address}: its object {NAME!r} is no lease of this project; remove it if"
            " nobody writes"
        ) from None
    left = until - time.time()
    if left > 0 and not _has_died(holder):
        raise _taken(
            bucket,
            f"process {holder.get('pid')} on {holder.get('host')}, for {left:.0f} s more unless it"
            " renews that",
        )
    return tag


def _taken(bucket: Bucket, who: str) -> CacheError:
    return CacheError(
        f"{bucket.address}: another process is writing to this cache ({who}); wait for it or"
        " stop it"
    )


def _this_process() -> dict[str, Any]:
    """Enough to know on the same machine whether a process is still there."""
    return {
        "host": socket.gethostname(),
        "system": _system(),
        "pid": os.getpid(),
        "began": _began(os.getpid()),
    }


def _system() -> str:
    """This start of this machine, and this space of process numbers."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + str(
            Path("/proc/self/ns/pid").readlink()
        )
    return ""


def _began(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None where there is no such process."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return None


def _has_died(holder: dict[str, Any]) -> bool:
    """Whether a process of this machine is known to be gone."""
    if (
        not holder.get("system")
        or holder["system"] != _system()
        or type(holder.get("pid")) is not int
    ):
        return False
    return _began(holder["pid"]) != holder.get("began")
