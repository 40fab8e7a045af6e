"""Commands with a cache in an object store: extract, resume, verify, train, evaluate, repair."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from cache.storage.bucket import Bucket
from cache.upkeep.summary import summarise_cache
from tests.cache.storage.server import new_address
from tests.cli_process import CliProcess, run_process
from tests.conftest import RunCli

CPU = ["--device", "cpu"]
EXTRACT = ["--limit", "160", "--shard-tokens", "600", "--layers", "-1,0", "--dtype", "fp32", *CPU]
TRAIN = ["--max-steps", "12", "--batch-size", "4", "--eval-every", "6", "--log-every", "2", *CPU]


@pytest.fixture
def options(s3_endpoint: str, tmp_path: Path) -> list[str]:
    return ["--endpoint", s3_endpoint, "--copies", str(tmp_path / "copies")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache of the same extract in a folder."""
    root = tmp_path_factory.mktemp("folder") / "c"
    done = run_process("extract", "--cache", root, *EXTRACT)
    assert done.returncode == 0, done.stderr
    return root


def extract_process(address: str, options: list[str]) -> CliProcess:
    return CliProcess("extract", "--cache", address, *EXTRACT, *options, "--json")


def test_a_killed_extract_resumes_to_the_content_of_a_folder(
    folder: Path, s3_endpoint: str, options: list[str], run_cli: RunCli
) -> None:
    address = new_address()
    bucket = Bucket(address, s3_endpoint)
    process = extract_process(address, options)
    while process.poll() is None and len(bucket.sizes("journal")) < 4:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -9
    published = json.loads(run_cli("cache", "inspect", address, *options, "--json").stdout)
    assert not published["complete"]
    assert published["shards"] >= 4
    assert run_cli("cache", "verify", address, *options).returncode == 1
    done = json.loads(run_cli("extract", "--cache", address, *EXTRACT, *options, "--json").stdout)
    assert done["resumed_shards"] >= published["shards"]
    assert done["content_digest"] == summarise_cache(folder)["content_digest"]
    assert bucket.sizes("journal") == {}
    verified = run_cli("cache", "verify", address, *options)
    assert verified.returncode == 0, verified.stdout
    assert "not part of the cache" not in verified.stdout


@pytest.mark.slow
def test_ray_actors_write_to_a_store(folder: Path, options: list[str]) -> None:
    process = extract_process(new_address(), [*options, "--engine", "ray", "--workers", "2"])
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["content_digest"] == summarise_cache(folder)["content_digest"]


@pytest.fixture(scope="module")
def uploaded(folder: Path, s3_endpoint: str) -> str:
    address = new_address()
    files = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    ]
    Bucket(address, s3_endpoint).upload(folder, files)
    return address


def test_training_from_a_store_and_a_folder_gives_the_same_weights(
    folder: Path, uploaded: str, options: list[str], run_cli: RunCli, tmp_path: Path
) -> None:
    for name, cache, store in (("folder", str(folder), []), ("store", uploaded, options)):
        done = run_cli("train", "--cache", cache, "--run", tmp_path / name, *TRAIN, *store)
        assert done.returncode == 0, done.stderr
    weights = {
        (tmp_path / name / "model" / "model.safetensors").read_bytes()
        for name in ("folder", "store")
    }
    assert len(weights) == 1
    evaluate = ["evaluate", "--run", tmp_path / "store", "--samples", 2]
    evaluated = run_cli(*evaluate, "--copies", tmp_path / "e", "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["settings"]["cache"] == uploaded
    assert list((tmp_path / "e").iterdir())


@pytest.mark.slow
def test_training_with_too_few_copies_gives_the_same_weights_with_workers_and_after_a_kill(
    uploaded: str, s3_endpoint: str, run_cli: RunCli, tmp_path: Path
) -> None:
    small = ["--endpoint", s3_endpoint, "--copies", str(tmp_path / "small"), "--copies-gb", "0.002"]
    whole = run_cli("train", "--cache", uploaded, "--run", tmp_path / "whole", *TRAIN, *small)
    assert whole.returncode == 0, whole.stderr
    process = CliProcess("train", "--cache", uploaded, "--run", tmp_path / "killed", *TRAIN, *small)
    checkpoint = tmp_path / "killed" / "checkpoints" / "checkpoint-6"
    while process.poll() is None and not (checkpoint / "trainer_state.json").exists():
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9
    resumed = run_cli(
        "train", "--cache", uploaded, "--run", tmp_path / "killed", *TRAIN, *small, "--resume"
    )
    assert resumed.returncode == 0, resumed.stderr
    command = ["train", "--cache", uploaded, "--run", tmp_path / "workers", *TRAIN, *small]
    workers = run_process(*command, "--loader-workers", 2)
    assert workers.returncode == 0, workers.stderr
    runs = ("whole", "killed", "workers")
    weights = {(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in runs}
    assert len(weights) == 1


def test_caches_in_a_store_are_converted_and_repaired(
    folder: Path, uploaded: str, options: list[str], s3_endpoint: str, run_cli: RunCli
) -> None:
    address = new_address()
    done = run_cli("cache", "convert", uploaded, address, "--format", "hdf5", *options, "--json")
    assert json.loads(done.stdout)["same_content"], done.stderr
    bucket = Bucket(address, s3_endpoint)
    bucket.delete(["shards/000001.h5"])
    damaged = run_cli("cache", "verify", address, *options)
    assert damaged.returncode == 1
    assert "shards/000001.h5: missing" in damaged.stdout
    assert damaged.stderr.count("\n") == 1
    repaired = run_cli("cache", "repair", address, *options, "--json")
    assert repaired.returncode == 0, repaired.stderr
    assert (
        json.loads(repaired.stdout)["content_digest"] == summarise_cache(folder)["content_digest"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["cache", "inspect", "s3://nobucket/x"],
            "s3://nobucket/x: there is no such bucket; create it, or choose another",
        ),
        (
            ["cache", "inspect", "s3://bucket"],
            "s3://bucket: not a bucket with a prefix; write s3://bucket/prefix",
        ),
        (
            ["cache", "inspect", "s3:/bucket/x"],
            "s3:/bucket/x: unknown kind of address",
        ),
        (["cache", "verify", "s3://bucket/nothing-here"], "s3://bucket/nothing-here: not a cache"),
        (
            ["train", "--cache", "gs://bucket/x", "--run", "r"],
            "gs://bucket/x: unknown kind of address",
        ),
        (
            ["extract", "--cache", "here"],
            "--endpoint is for caches at s3://…, and here is a folder",
        ),
        (["chat", "--run", "a"], "--endpoint is for caches at s3://…, and none is named"),
    ],
)
def test_wrong_addresses_are_reported_in_one_line(
    arguments: list[str], message: str, options: list[str], run_cli: RunCli
) -> None:
    done = run_cli(*arguments, *options)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}"), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("endpoint", ["127.0.0.1:5700", "http://", "ftp://host", "http:// host"])
def test_an_endpoint_that_is_not_a_url_is_refused(endpoint: str, run_cli: RunCli) -> None:
    done = run_cli("cache", "inspect", "s3://bucket/x", "--endpoint", endpoint)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"--endpoint {' '.join(endpoint.split())}: not the URL of a server" in done.stderr


def test_an_unreachable_server_is_a_failed_run(run_cli: RunCli, s3_endpoint: str) -> None:
    done = run_cli("cache", "inspect", "s3://bucket/x", "--endpoint", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: s3://bucket/x: the object store does not answer")
    assert done.stderr.count("\n") == 1


def test_credentials_and_endpoint_come_from_the_environment(
    uploaded: str, s3_endpoint: str, tmp_path: Path
) -> None:
    environment = os.environ | {"AWS_ENDPOINT_URL": s3_endpoint, "XDG_CACHE_HOME": str(tmp_path)}
    done = run_process("cache", "inspect", uploaded, "--json", environment=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["complete"]
    assert list((tmp_path / "llm-modules" / "copies").iterdir())
