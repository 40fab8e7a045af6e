"""A server that cannot keep two writers apart is refused before anything is written."""

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


LAX: dict[str, tuple[dict[str, Any], str]] = {
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
    "takes every object to be there": (
        {
            "refuse": lambda method, headers: (
                412 if method == "PUT" and "if-none-match" in headers else None
            )
        },
        "refuses a put with If-None-Match where nothing is there",
    ),
}


@pytest.mark.parametrize("kind", LAX)
def test_a_server_without_conditional_puts_is_refused_and_nothing_is_left_behind(
    kind: str, s3_endpoint: str, tmp_path: Path
) -> None:
    change, lack = LAX[kind]
    address = new_address()
    with running_proxy(s3_endpoint, **change) as endpoint:
        location = ObjectStoreLocation(address, endpoint, tmp_path / "copies")
        begun = write_cache(location, make_manifest(SHARDS), make_attachments(tmp_path / "x"))
        with (
            pytest.raises(
                CacheError, match=f"{re.escape(address)}: the server {re.escape(endpoint)} {lack}"
            ),
            begun as writer,
        ):
            writer.publish(0, make_content(SHARDS[0]))
    assert Bucket(address, s3_endpoint).sizes() == {}


def test_it_is_refused_before_anything_costly_is_done(s3_endpoint: str, tmp_path: Path) -> None:
    with running_proxy(s3_endpoint, without=("if-none-match",)) as endpoint:
        location = ObjectStoreLocation(new_address(), endpoint, tmp_path / "copies")
        with pytest.raises(CacheError, match="ignores If-None-Match"):
            location.require_unlocked()


def test_of_two_writers_that_begin_at_the_same_moment_one_is_refused(
    s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        lease_module, "_etag_to_replace", lambda bucket: None
    )  # both have looked, and nobody was there
    honest = Bucket(new_address(), s3_endpoint)
    with Lease(honest), pytest.raises(CacheError, match="another process is writing"):
        Lease(honest).__enter__()
    with running_proxy(s3_endpoint, without=("if-none-match",)) as endpoint:
        lax = Bucket(new_address(), endpoint)
        with (
            contextlib.ExitStack() as entered,
            pytest.raises(CacheError, match="ignores If-None-Match"),
        ):
            for _ in range(2):
                entered.enter_context(Lease(lax))


def test_a_server_that_is_too_busy_is_not_taken_for_one_that_cannot(s3_endpoint: str) -> None:
    busy = conditional("if-none-match", status=503)
    with running_proxy(s3_endpoint, refuse=busy) as endpoint, pytest.raises(OSError, match="503"):
        require_conditional_put(Bucket(new_address(), endpoint))


def test_an_honest_server_passes_through_a_proxy_too(s3_endpoint: str) -> None:
    with running_proxy(s3_endpoint) as endpoint:
        bucket = Bucket(new_address(), endpoint)
        require_conditional_put(bucket)
        with Lease(bucket):
            pass
    assert bucket.address
    assert Bucket(bucket.address, s3_endpoint).sizes() == {}


def test_a_probe_that_could_not_be_removed_is_part_of_no_cache(
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


def test_the_command_says_so_in_one_line(s3_endpoint: str, run_cli: RunCli, tmp_path: Path) -> None:
    with running_proxy(s3_endpoint, without=("if-none-match",)) as endpoint:
        options = [
            "--endpoint",
            endpoint,
            "--copies",
            tmp_path / "copies",
            "--limit",
            4,
            "--device",
            "cpu",
            "--dtype",
            "fp32",
        ]
        done = run_cli("extract", "--cache", new_address(), *options)
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1
        assert f"the server {endpoint} ignores If-None-Match" in done.stderr
