"""A server that cannot exclude a second writer is refused before anything is written."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import pytest

from cache import CacheError, write_cache
from cache.storage import lease as lease_module
from cache.storage.bucket import Bucket
from cache.storage.conditional_put import PROBE, require_conditional_put
from cache.storage.lease import Lease
from cache.storage.object_store import ObjectStoreLocation
from tests.cache.examples import make_attachments, make_content, make_manifest, make_shards
from tests.cache.storage.proxy import running_proxy
from tests.cache.storage.server import new_address
from tests.conftest import RunCli

SHARDS = make_shards([[5, 3], [4]])


def conditional(*names: str, status: int = 501) -> Any:
    return lambda method, headers: (
        status if method == "PUT" and any(name in headers for name in names) else None
    )


DEFECTS: dict[str, tuple[dict[str, Any], str]] = {
    "ignores If-None-Match": ({"without": ("if-none-match",)}, "ignores If-None-Match in a put"),
    "ignores If-Match": ({"without": ("if-match",)}, "ignores If-Match in a put"),
    "ignores both": ({"without": ("if-match", "if-none-match")}, "ignores If-None-Match in a put"),
    "does not implement If-None-Match": (
        {"refuse": conditional("if-none-match")},
        "refuses a put with If-None-Match",
    ),
    "does not implement If-Match": (
        {"refuse": conditional("if-match")},
        "refuses a put with If-Match",
    ),
    "reports every object as existing": (
        {
            "refuse": lambda method, headers: (
                412 if method == "PUT" and "if-none-match" in headers else None
            )
        },
        "refuses a put with If-None-Match although there is no object",
    ),
}


@pytest.mark.parametrize("kind", DEFECTS)
def test_a_server_without_conditional_puts_is_refused_and_nothing_is_stored(
    kind: str, s3_endpoint: str, tmp_path: Path
) -> None:
    change, defect = DEFECTS[kind]
    address = new_address()
    with running_proxy(s3_endpoint, **change) as endpoint:
        location = ObjectStoreLocation(address, endpoint, tmp_path / "copies")
        begun = write_cache(location, make_manifest(SHARDS), make_attachments(tmp_path / "x"))
        with (
            pytest.raises(
                CacheError, match=f"{re.escape(address)}: the server {re.escape(endpoint)} {defect}"
            ),
            begun as writer,
        ):
            writer.publish(0, make_content(SHARDS[0]))
    assert Bucket(address, s3_endpoint).sizes() == {}


def test_such_a_server_is_refused_before_costly_work(s3_endpoint: str, tmp_path: Path) -> None:
    with running_proxy(s3_endpoint, without=("if-none-match",)) as endpoint:
        location = ObjectStoreLocation(new_address(), endpoint, tmp_path / "copies")
        with pytest.raises(CacheError, match="ignores If-None-Match"):
            location.require_unlocked()


def test_one_of_two_simultaneous_writers_is_refused(
    s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # neither saw a lease
    monkeypatch.setattr(lease_module, "_etag_to_replace", lambda bucket: None)
    conforming = Bucket(new_address(), s3_endpoint)
    with Lease(conforming), pytest.raises(CacheError, match="another process is writing"):
        Lease(conforming).__enter__()
    with running_proxy(s3_endpoint, without=("if-none-match",)) as endpoint:
        lax = Bucket(new_address(), endpoint)
        with (
            contextlib.ExitStack() as entered,
            pytest.raises(CacheError, match="ignores If-None-Match"),
        ):
            for _ in range(2):
                entered.enter_context(Lease(lax))


def test_a_busy_server_is_not_reported_as_one_without_conditional_puts(s3_endpoint: str) -> None:
    busy = conditional("if-none-match", status=503)
    with running_proxy(s3_endpoint, refuse=busy) as endpoint, pytest.raises(OSError, match="503"):
        require_conditional_put(Bucket(new_address(), endpoint))


def test_a_conforming_server_is_accepted_through_a_proxy(s3_endpoint: str) -> None:
    with running_proxy(s3_endpoint) as endpoint:
        bucket = Bucket(new_address(), endpoint)
        require_conditional_put(bucket)
        with Lease(bucket):
            pass
    assert bucket.address
    assert Bucket(bucket.address, s3_endpoint).sizes() == {}


def test_a_remaining_probe_is_not_part_of_a_cache(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = new_address()
    with monkeypatch.context() as patch:
        patch.setattr(
            Bucket, "delete", lambda *_: (_ for _ in ()).throw(CacheError("access is denied"))
        )
        require_conditional_put(Bucket(address, s3_endpoint))
    assert [name for name in Bucket(address, s3_endpoint).sizes() if name.startswith(PROBE)]
    location = ObjectStoreLocation(address, s3_endpoint, tmp_path / "copies")
    with write_cache(location, make_manifest(SHARDS), make_attachments(tmp_path / "x")) as writer:
        for shard, examples in enumerate(SHARDS):
            writer.publish(shard, make_content(examples))
    assert not [name for name in location.file_names() if name.startswith(PROBE)]


def test_the_command_reports_the_server_in_one_line(
    s3_endpoint: str, run_cli: RunCli, tmp_path: Path
) -> None:
    with running_proxy(s3_endpoint, without=("if-none-match",)) as endpoint:
        store = ["--cache", new_address(), "--endpoint", endpoint, "--copies", tmp_path / "copies"]
        done = run_cli("extract", *store, "--limit", 4, "--device", "cpu", "--dtype", "fp32")
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1
        assert f"the server {endpoint} ignores If-None-Match" in done.stderr
