"""A device whose memory is too small for a batch: the batch is halved, and no number changes but in
its last bits."""

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
prepared = prepare(settings)
worker = ShardWorker(prepared.work())
for shard in range(len(prepared.shards)):
    worker.read(shard, ())
    status = Path("/proc/self/status").read_text().splitlines()
    print(next(line.split()[1] for line in status if line.startswith("RssAnon:")))
"""


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "c")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    held = [int(line) / 1024 for line in done.stdout.split()]
    assert len(held) > 15
    assert held[-1] < held[5] + 20, f"{held} MB after each shard"


def with_memory_for(tokens: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A device that runs out of memory above so many padded tokens; collects the sizes that it was
    asked for."""
    asked: list[int] = []
    plain = Teacher.hidden_states

    def hidden_states(self: Teacher, input_ids_BT: torch.Tensor, *rest: Any) -> Any:
        asked.append(input_ids_BT.numel())
        if input_ids_BT.numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return plain(self, input_ids_BT, *rest)

    monkeypatch.setattr(Teacher, "hidden_states", hidden_states)
    return asked


def test_a_batch_that_does_not_fit_is_halved_for_good(
    embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = embedded_settings(batch_tokens=3000)
    extract(prepare(whole))
    asked = with_memory_for(800, monkeypatch)
    small = embedded_settings(batch_tokens=3000)
    extract(prepare(small))
    assert sum(size > 800 for size in asked) == 2  # 3000 and 1500; 750 fits, and is not left again
    with open_cache(whole.cache) as cache, open_cache(small.cache) as other:
        assert {record.provenance["batch_tokens"] for record in cache.records} == {3000}
        halved = [record.provenance["batch_tokens"] for record in other.records].index(750)
        assert [record.provenance["batch_tokens"] for record in other.records] == [
            3000
        ] * halved + [750] * (len(other.records) - halved)
        for one, two in zip(cache, other, strict=True):
            exact = one.hidden_states[-1].astype(np.float32)
            assert (
                np.abs(exact - two.hidden_states[-1].astype(np.float32)).max()
                <= 2**-7 * np.abs(exact).max()
            )
        again = replace(small, batch_tokens=750, cache=small.cache.with_name("again"))
        extract(prepare(again))
        digests = [
            [record.digest for record in records[halved:]]
            for records in (other.records, open_cache(again.cache).records)
        ]
        assert digests[0] == digests[1]


def test_an_example_that_does_not_fit_alone_is_told(
    embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_memory_for(40, monkeypatch)
    with pytest.raises(
        RunError, match=r"memory is too small for an example of \d+ tokens .*--max-tokens"
    ):
        extract(prepare(embedded_settings()))
