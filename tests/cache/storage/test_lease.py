"""The lease: one process may write to an object store, and not for ever."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache import CacheError, write_cache
from cache.storage import lease as lease_module
from cache.storage.bucket import Bucket, ConflictError
from cache.storage.lease import NAME, Lease, require_free
from cache.storage.object_store import ObjectStoreLocation
from tests.cache.examples import make_attachments, make_content, make_manifest, make_shards
from tests.conftest import ROOT

SHARDS = make_shards([[5, 3], [4]])
Store = Callable[[], ObjectStoreLocation]


@pytest.fixture
def bucket(store: Store) -> Bucket:
    location = store()
    return Bucket(location.address, location.endpoint)


def holder_of(bucket: Bucket) -> dict[str, Any]:
    return json.loads(bucket.get(NAME) or b"{}")


def test_an_object_is_created_once_and_replaced_only_by_its_etag(bucket: Bucket) -> None:
    tag = bucket.put_if("a", b"1", None)
    with pytest.raises(ConflictError):
        bucket.put_if("a", b"2", None)
    newer = bucket.put_if("a", b"2", tag)
    with pytest.raises(ConflictError):
        bucket.put_if("a", b"3", tag)
    stored = bucket.get_stored("a")
    assert stored is not None
    assert stored[:2] == (b"2", newer)
    # the same put, repeated because its response was lost
    assert bucket.put_if("a", b"2", tag) == newer
    with pytest.raises(ConflictError):
        bucket.put_if("gone", b"1", tag)


def test_one_writer_at_a_time(bucket: Bucket) -> None:
    with Lease(bucket):
        for attempt in (lambda: Lease(bucket).__enter__(), lambda: require_free(bucket)):
            with pytest.raises(
                CacheError,
                match=f"another process is writing to this cache .process {os.getpid()} on",
            ):
                attempt()
    require_free(bucket)
    assert bucket.get(NAME) is None
    with Lease(bucket):
        pass


def test_the_lease_of_a_dead_process_of_this_machine_is_free_at_once(bucket: Bucket) -> None:
    program = (
        "import os, sys; from cache.storage.bucket import Bucket; from cache.storage.lease import"
        " Lease\nLease(Bucket(sys.argv[1], sys.argv[2])).__enter__(); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", program, bucket.address, bucket.endpoint]
    assert subprocess.run(command, cwd=ROOT, check=False, timeout=60).returncode == -9
    assert holder_of(bucket)["until"] > time.time() + 30
    with Lease(bucket):
        assert holder_of(bucket)["holder"]["pid"] == os.getpid()


@pytest.mark.parametrize("change", [{"system": "another machine"}, {"system": ""}, {"pid": "1"}])
def test_the_lease_of_another_machine_is_free_when_it_has_expired(
    bucket: Bucket, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lease(bucket):
        content = holder_of(bucket)
    content["holder"] |= {"began": "0", **change}
    content["until"] += 1e6  # its clock was far ahead
    bucket.put(NAME, json.dumps(content).encode())
    with pytest.raises(CacheError, match=r"another process is writing .* expires in (60|61) s"):
        require_free(bucket)
    monkeypatch.setattr(lease_module, "SECONDS", 1.0)
    time.sleep(3.1)  # SECONDS, and twice the resolution of the server's dates
    require_free(bucket)
    with Lease(bucket):
        assert holder_of(bucket)["nonce"] != content["nonce"]


@pytest.mark.parametrize(
    "content", [b"[]", b"{}", b'{"holder": 5, "until": 1}', b'{"holder": null}']
)
def test_another_object_under_the_name_is_not_removed(bucket: Bucket, content: bytes) -> None:
    bucket.put(NAME, content)
    with pytest.raises(CacheError, match="is not a lease"):
        Lease(bucket).__enter__()
    assert bucket.get(NAME) == content


def test_a_lease_is_renewed_and_its_loss_is_noticed(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "SECONDS", 0.8)
    with Lease(bucket) as lease:
        first = holder_of(bucket)["until"]
        time.sleep(1.5)
        lease.require_valid()
        assert holder_of(bucket)["until"] > first
        bucket.put(NAME, b"somebody else's")
        time.sleep(0.5)
        with pytest.raises(CacheError, match="the right to write was lost"):
            lease.require_valid()
    assert bucket.get(NAME) == b"somebody else's", "the lease of another was deleted"


def test_a_renewal_with_a_lost_response_keeps_the_lease(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "SECONDS", 2.0)
    plain, lost = Bucket.put_if, list[int]()

    def without_response(self: Bucket, *arguments: Any) -> str:
        tag = plain(self, *arguments)
        lost.append(1)
        if len(lost) == 1:
            raise OSError("the response is lost")
        return tag

    with Lease(bucket) as lease:
        monkeypatch.setattr(Bucket, "put_if", without_response)
        time.sleep(2.6)
        lease.require_valid()
    assert len(lost) >= 2
    assert bucket.get(NAME) is None


def test_the_lease_is_lost_if_the_store_does_not_answer(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "SECONDS", 0.6)
    with Lease(bucket) as lease:
        monkeypatch.setattr(
            Bucket, "put_if", lambda *_: (_ for _ in ()).throw(OSError("no answer"))
        )
        time.sleep(0.9)
        with pytest.raises(CacheError, match="the right to write was lost"):
            lease.require_valid()


def test_nothing_is_published_without_the_lease(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = store()
    with pytest.raises(CacheError, match="the right to write was lost"):  # noqa: SIM117
        with write_cache(
            location, make_manifest(SHARDS), make_attachments(tmp_path / "x")
        ) as writer:
            writer.publish(0, make_content(SHARDS[0]))
            monkeypatch.setattr(lease_module, "clock", lambda: 1e12)  # the process was suspended
            writer.publish(1, make_content(SHARDS[1]))
    names = Bucket(location.address, location.endpoint).sizes("journal")
    assert list(names) == ["journal/000000.jsonl"]


def test_a_renewed_lease_is_kept_whatever_its_holders_clock(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "SECONDS", 1.0)
    monkeypatch.setattr(lease_module, "has_died", lambda holder: False)
    plain = time.time
    monkeypatch.setattr(time, "time", lambda: plain() - 1e6)
    with Lease(bucket) as lease:
        monkeypatch.setattr(time, "time", plain)
        for _ in range(12):
            time.sleep(0.3)
            with pytest.raises(CacheError, match="another process is writing"):
                require_free(bucket)
        lease.require_valid()


# A process with a wrong wall clock that takes the lease repeatedly, and prints when it had it, by
# the clock that all processes of the machine share.
CONTENDER = """
import sys, time
address, endpoint, offset = sys.argv[1:]
plain = time.time
time.time = lambda: plain() + float(offset)
from cache import CacheError
from cache.storage import lease
from cache.storage.bucket import Bucket
lease.SECONDS, lease.has_died = 1.0, lambda holder: False
bucket, end = Bucket(address, endpoint), lease.clock() + 8
while lease.clock() < end:
    try:
        with lease.Lease(bucket) as taken:
            start = lease.clock()
            time.sleep(1.5)
            taken.require_valid()
            print(start, lease.clock(), flush=True)
        time.sleep(0.3)
    except CacheError as error:
        assert "another process is writing" in str(error), error
        time.sleep(0.05)
"""


def test_processes_with_skewed_clocks_never_share_the_lease(bucket: Bucket) -> None:
    contenders = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER, bucket.address, str(bucket.endpoint), offset],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for offset in ("-3600", "3600")
    ]
    outputs = [contender.communicate(timeout=120) for contender in contenders]
    assert [contender.returncode for contender in contenders] == [0, 0], outputs
    periods = sorted(
        (*map(float, line.split()), number)
        for number, (printed, _) in enumerate(outputs)
        for line in printed.splitlines()
    )
    assert len(periods) >= 3
    assert all(end <= start for (_, end, _), (start, _, _) in itertools.pairwise(periods))
