"""Shared fixtures: the embedded teacher, a small cache of its states, and the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.commands.libraries import QUIET

os.environ.update(QUIET)  # must precede the import of libraries, which commands in tests share

import torch
from transformers import PreTrainedTokenizerBase

from pipeline.commands import main
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.teacher.source import find_teacher
from tests.cache.storage.server import CREDENTIALS, running_server
from tests.cli_process import ROOT as ROOT

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for subprocesses: parallel tests share the cores

RunCli = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests with the longest time limits first, to balance the workers."""
    longest = [
        mark.args[0] if (mark := item.get_closest_marker("timeout")) else 0 for item in items
    ]
    items[:] = [
        item for _, item in sorted(zip(longest, items, strict=True), key=lambda pair: -pair[0])
    ]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return find_teacher(EMBEDDED_TEACHER).load_tokenizer()


@pytest.fixture(scope="session")
def embedded_settings(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ExtractSettings]:
    """Return a factory of settings for a small extract in fp32, the same on every machine."""

    def make(**changes: object) -> ExtractSettings:
        options: dict[str, object] = {
            "teacher": EMBEDDED_TEACHER,
            "dataset": EMBEDDED_DATASET,
            "cache": tmp_path_factory.mktemp("extract") / "cache",
            "layers": (-1, 0),
            "limit": 40,
            "shard_tokens": 1500,
            "dtype": "fp32",
            "device": "cpu",
        }
        return ExtractSettings(**(options | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def small_cache(embedded_settings: Callable[..., ExtractSettings]) -> Path:
    """Return a read-only Zarr cache of 40 embedded problems: layers -1 and 0, several shards."""
    settings = embedded_settings()
    extract(prepare(settings))
    return settings.cache


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Start an S3 server with a bucket named `bucket`, its credentials in the environment."""
    with pytest.MonkeyPatch.context() as patch, running_server() as endpoint:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield endpoint


@pytest.fixture
def run_cli() -> RunCli:
    """Return a function that runs a command in this process, with the libraries already loaded."""

    def run(*arguments: object, text_input: str | None = None) -> subprocess.CompletedProcess[str]:
        result = CliRunner().invoke(
            main, list(map(str, arguments)), input=text_input, prog_name="llm-modules"
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return subprocess.CompletedProcess(
            list(arguments), result.exit_code, result.stdout, result.stderr
        )

    return run


def write_rows(path: Path, rows: list[object]) -> Path:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def copied_cache(small_cache: Path, tmp_path: Path) -> Path:
    """Return a copy of `small_cache` that a test may damage."""
    return shutil.copytree(small_cache, tmp_path / "c")
