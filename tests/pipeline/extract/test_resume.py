"""An extract that was killed or failed resumes, and the cache has the same content."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache import CacheError, CacheWriter, open_cache
from cache.journal import scan_journal
from cache.shard.record import ShardRecord
from cache.upkeep.verify import verify_cache
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from tests.cli_process import CliProcess, run_process

Make = Callable[..., ExtractSettings]
AS_SMALL_CACHE = [
    *("--layers", "-1,0"),
    *("--limit", "40"),
    *("--shard-tokens", "1500"),
    *("--dtype", "fp32"),
    *("--device", "cpu"),
]


@pytest.mark.parametrize("name", ["zarr", "hdf5"])
def test_a_failed_write_ends_the_run_at_once_and_it_resumes(
    name: str, embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = embedded_settings(format=name)
    digest = extract(prepare(embedded_settings(format=name))).content_digest
    plain, written = CacheWriter.publish, list[int]()

    def fail_on_the_third(
        self: CacheWriter, shard: int, *arguments: Any, **options: Any
    ) -> ShardRecord:
        if len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(shard)
        return plain(self, shard, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(CacheWriter, "publish", fail_on_the_third)
        with pytest.raises(OSError, match="No space left"):
            extract(prepare(settings))
    assert len(scan_journal(settings.cache).records) == 2
    assert verify_cache(settings.cache).damage == []
    result = extract(prepare(settings))
    assert (result.resumed_shards, result.content_digest) == (2, digest)


def test_a_missing_shard_is_damage_and_not_resumed(embedded_settings: Make) -> None:
    settings = embedded_settings(limit=10, format="hdf5")
    extract(prepare(settings))
    (settings.cache / "shards" / "000000.h5").unlink()
    with pytest.raises(CacheError, match=r"000000\.h5: missing; repair it with `cache repair`"):
        extract(prepare(settings))


def published_shards(root: Path) -> int:
    return len(scan_journal(root).records) if root.is_dir() else 0


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_it_resumes_to_the_same_content(
    seed: int, small_cache: Path, tmp_path: Path
) -> None:
    root = tmp_path / "c"
    process = CliProcess("extract", "--cache", root, *AS_SMALL_CACHE, "--json")
    shards_before_the_kill = 1 + seed
    deadline = time.monotonic() + 120
    while published_shards(root) < shards_before_the_kill and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(random.Random(seed).random() * 0.02)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = run_process("extract", "--cache", root, *AS_SMALL_CACHE, "--json")
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert shards_before_the_kill <= result["resumed_shards"] <= result["shards"]
    digest = open_cache(small_cache).content_digest
    assert result["content_digest"] == open_cache(root).content_digest == digest
