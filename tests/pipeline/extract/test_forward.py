"""Memory of the forward pass: batches are halved when the device runs out of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache import open_cache
from pipeline.errors import RunError
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.teacher.model import Teacher
from tests.conftest import ROOT

Make = Callable[..., ExtractSettings]


MEMORY = """
import sys
from pathlib import Path
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.extract.prepare import prepare
from pipeline.extract.settings import ExtractSettings
from pipeline.extract.worker import ShardWorker
rows = dict(limit=600, shard_tokens=4096)
settings = ExtractSettings(
    teacher=EMBEDDED_TEACHER, dataset=EMBEDDED_DATASET, cache=Path(sys.argv[1]),
    dtype="bf16", device="cpu", **rows,
)
plan = prepare(settings)
worker = ShardWorker(plan.work())
for _ in range(3):
    for shard in range(len(plan.shards)):
        worker.read(shard, ())
    status = Path("/proc/self/status").read_text().splitlines()
    print(len(plan.shards), next(line.split()[1] for line in status if line.startswith("RssAnon:")))
"""


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "c")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    passes = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert all(shards > 15 for shards, _ in passes)
    first, *_, last = (kilobytes / 1024 for _, kilobytes in passes)
    # The first pass fills the allocator's arenas. Kept states would take 20 MB per pass.
    assert last < first + 20


def limit_memory(tokens: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Run out of memory above some padded tokens; return the sizes of the batches tried."""
    sizes: list[int] = []
    plain = Teacher.hidden_states

    def hidden_states(self: Teacher, input_ids_BT: torch.Tensor, *rest: Any) -> Any:
        sizes.append(input_ids_BT.numel())
        if input_ids_BT.numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return plain(self, input_ids_BT, *rest)

    monkeypatch.setattr(Teacher, "hidden_states", hidden_states)
    return sizes


def test_a_batch_that_is_too_large_is_halved_for_good(
    embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = embedded_settings(batch_tokens=3000)
    extract(prepare(whole))
    sizes = limit_memory(800, monkeypatch)
    small = embedded_settings(batch_tokens=3000)
    extract(prepare(small))
    assert sum(size > 800 for size in sizes) == 2  # of 3000 and 1500 tokens; 750 fit
    with open_cache(whole.cache) as cache, open_cache(small.cache) as other:
        assert {record.provenance["batch_tokens"] for record in cache.records} == {3000}
        recorded = [record.provenance["batch_tokens"] for record in other.records]
        first = recorded.index(750)
        assert recorded == [3000] * first + [750] * (len(recorded) - first)
        for one, two in zip(cache, other, strict=True):
            exact, halved = (example.hidden_states[-1].astype(np.float32) for example in (one, two))
            assert np.abs(exact - halved).max() <= 2**-7 * np.abs(exact).max()
        again = replace(small, batch_tokens=750, cache=small.cache.with_name("again"))
        extract(prepare(again))
        assert [record.digest for record in other.records[first:]] == [
            record.digest for record in open_cache(again.cache).records[first:]
        ]


def test_an_example_that_is_too_large_ends_the_run_with_its_length(
    embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_memory(40, monkeypatch)
    with pytest.raises(
        RunError, match=r"memory is too small for an example of \d+ tokens .*--max-tokens"
    ):
        extract(prepare(embedded_settings()))
