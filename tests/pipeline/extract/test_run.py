"""Extraction against a plain forward pass of one example at a time, and through interruptions."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from cache import CacheError, CacheWriter, open_cache, write_cache
from cache.journal import scan_journal
from cache.shard.record import ShardRecord
from cache.upkeep.convert import convert_cache
from cache.upkeep.summary import summarise_cache
from cache.upkeep.verify import verify_cache
from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.errors import InputError, RunError
from pipeline.extract.plan import ExtractPlan
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.teacher.load import load_teacher
from pipeline.teacher.model import Teacher
from pipeline.teacher.source import find_teacher
from tests.cache.examples import rewrite_manifest, same_example
from tests.cli_process import CliProcess, run_process
from tests.conftest import write_rows
from tests.pipeline.recorded_progress import InterruptAfterShard

Make = Callable[..., ExtractSettings]


def test_cached_states_are_those_of_a_plain_forward_pass(small_cache: Path) -> None:
    model = load_teacher(find_teacher(EMBEDDED_TEACHER), (-1,), torch.device("cpu"), "fp32").body
    store = open_cache(small_cache)
    for example in store[::7]:
        with torch.no_grad():
            ids = torch.from_numpy(example.input_ids.astype(np.int64))[None]
            plain = model(input_ids=ids, output_hidden_states=True).hidden_states
        for layer, states in example.hidden_states.items():
            # bfloat16 keeps 8 bits: two roundings of nearly equal numbers differ by one step at
            # most
            np.testing.assert_allclose(
                states.astype(np.float32), plain[layer][0].numpy(), rtol=2**-7, atol=1e-4
            )


def test_the_result_counts_what_the_cache_holds(embedded_settings: Make) -> None:
    settings = embedded_settings(limit=6)
    result = extract(prepare(settings))
    store = open_cache(settings.cache)
    assert (result.examples, result.tokens, result.bytes) == (
        6,
        int(store.lengths.sum()),
        store.bytes,
    )
    assert result.left_out == {}
    again = extract(prepare(settings))
    assert again.resumed_shards == again.shards
    assert again.tokens_per_second is None
    assert again.content_digest == result.content_digest


def test_long_and_bad_rows_are_left_out_and_counted(
    embedded_settings: Make, tmp_path: Path
) -> None:
    rows = [{"question": "Q " * n, "answer": "A"} for n in (1, 2, 200)]
    path = write_rows(tmp_path / "rows.jsonl", [*rows, {"question": "Q"}])
    settings = embedded_settings(dataset=str(path), max_tokens=100, skip_bad_rows=True, limit=None)
    assert extract(prepare(settings)).left_out == {"over 100 tokens": 1, "malformed": 1}
    assert open_cache(settings.cache).row_ids == ["0", "1"]


def test_nothing_left_is_an_error_before_anything_is_written(embedded_settings: Make) -> None:
    settings = embedded_settings(max_tokens=3)
    with pytest.raises(InputError, match="no example is left"):
        prepare(settings)
    assert not settings.cache.exists()


@pytest.mark.parametrize(
    "change",
    [{"limit": 5}, {"template": "chat"}, {"layers": (-1,)}, {"loss_on": "all"}, {"dtype": "bf16"}],
)
def test_another_run_is_not_mixed_in(
    change: dict[str, object], embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = embedded_settings(limit=4)
    extract(prepare(settings))

    def no_model(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded before the mismatch was seen")

    monkeypatch.setattr("pipeline.extract.worker.load_teacher", no_model)
    other = embedded_settings(**({"limit": 4} | change | {"cache": settings.cache}))
    with pytest.raises(CacheError, match=r"was .*, now it is"):
        extract(prepare(other))


IDENTITY = ["teacher_weights", "teacher_config", "teacher_kind", "tokenizer", "dataset", "tokens", "template", "loss_on", "limit",
            "max_tokens", "condition", "compute_dtype", "sharing", "lm_head", "codec"]  # fmt: skip


@pytest.mark.parametrize("field", IDENTITY)
def test_every_field_of_the_identity_is_compared_before_a_model_is_loaded(
    field: str, embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = embedded_settings(limit=4)
    prepared = prepare(settings)
    with write_cache(
        settings.cache, prepared.manifest, prepared_attachments(prepared, settings.cache)
    ):
        pass  # a cache that was begun
    assert sorted(prepared.manifest.identity) == sorted(IDENTITY)
    now = prepared.manifest.identity[field]
    rewrite_manifest(settings.cache, lambda content: content["identity"].update({field: "other"}))
    monkeypatch.setattr("pipeline.extract.worker.load_teacher", refuse_to_load)
    with pytest.raises(CacheError, match=re.escape(f"{field} was 'other', now it is {now!r}")):
        extract(prepare(settings))


def refuse_to_load(*_: object, **__: object) -> None:
    raise AssertionError("a model was loaded")


def prepared_attachments(prepared: ExtractPlan, root: Path) -> Path:
    prepared.tokenizer.save_pretrained(root.parent / "attached" / "tokenizer")
    return root.parent / "attached"


def test_moving_the_teacher_changes_nothing(embedded_settings: Make, tmp_path: Path) -> None:
    teacher = shutil.copytree(EMBEDDED_TEACHER, tmp_path / "teacher")
    settings = embedded_settings(limit=8, teacher=str(teacher), shard_tokens=500)

    with pytest.raises(KeyboardInterrupt):
        extract(prepare(settings), InterruptAfterShard())
    moved = shutil.move(teacher, tmp_path / "moved")
    assert extract(prepare(replace(settings, teacher=str(moved)))).resumed_shards > 0


def break_rows(
    monkeypatch: pytest.MonkeyPatch, settings: ExtractSettings, broken: set[str], layer: int = -1
) -> None:
    """Let the teacher give three values that are not finite in the third token of some rows."""
    plain = Teacher.hidden_states
    starts = {
        tuple(example.input_ids[:200])
        for example in prepare(settings).dataset.examples
        if example.row_id in broken
    }

    def hidden_states(
        self: Teacher, ids: torch.Tensor, mask: torch.Tensor | None = None, past: Any = None
    ) -> dict[int, torch.Tensor]:
        states = {layer: values.clone() for layer, values in plain(self, ids, mask, past).items()}
        for row, tokens in enumerate(ids.tolist()):
            length = len(tokens) if mask is None else int(mask[row].sum())
            if tuple(tokens[: min(200, length)]) in starts:
                states[layer][row, 2, :3] = torch.tensor(
                    [float("nan"), float("inf"), -float("inf")]
                )
        return states

    monkeypatch.setattr(Teacher, "hidden_states", hidden_states)


def test_states_that_are_not_finite_stop_the_run(
    embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = embedded_settings(limit=6, sharing=False)
    break_rows(monkeypatch, settings, {"4"}, layer=0)
    with pytest.raises(
        RunError,
        match=r"row 4, layer 0: the teacher gives 3 values that are not finite.*--skip-non-finite",
    ):
        extract(prepare(settings))


def test_rows_without_finite_states_are_left_out_and_counted(
    embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = embedded_settings(limit=20, shard_tokens=600, sharing=False)
    with monkeypatch.context() as patch:
        break_rows(patch, settings, {"1", "2", "17"})
        with pytest.raises(RunError):
            extract(prepare(settings))
        skipping = replace(
            settings, skip_non_finite=True
        )  # goes on with the cache that has stopped
        result = extract(prepare(skipping))
    store = open_cache(settings.cache)
    assert store.row_ids == [str(row) for row in range(20) if row not in (1, 2, 17)]
    assert (result.examples, result.left_out) == (17, {"states not finite": 3})
    assert (result.tokens, result.bytes) == (int(store.lengths.sum()), store.bytes)
    assert verify_cache(settings.cache).whole
    summary = summarise_cache(settings.cache)
    assert (summary["examples"], summary["planned_examples"], summary["left_out"]) == (
        17,
        20,
        {"states not finite": 3},
    )
    whole = embedded_settings(limit=20, shard_tokens=600, sharing=False)
    extract(prepare(whole))
    others = {example.row_id: example for example in open_cache(whole.cache)}
    assert all(same_example(example, others[example.row_id]) for example in store)


def test_a_shard_of_which_nothing_is_left_is_published_empty(
    embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = embedded_settings(
        limit=6, shard_tokens=1, skip_non_finite=True, sharing=False
    )  # a shard an example
    break_rows(monkeypatch, settings, {"2", "3"})
    assert extract(prepare(settings)).examples == 4
    assert open_cache(settings.cache).row_ids == ["0", "1", "4", "5"]
    assert [len(example) for example in open_cache(settings.cache)] == open_cache(
        settings.cache
    ).lengths.tolist()
    assert verify_cache(settings.cache).whole
    converted = settings.cache.with_name("converted")
    assert convert_cache(settings.cache, converted, container="hdf5").same_content
    assert verify_cache(converted).whole
    everything = replace(settings, cache=settings.cache.with_name("nothing"), limit=2)
    break_rows(monkeypatch, everything, {"0", "1"})
    with pytest.raises(RunError, match="no example is left"):
        extract(prepare(everything))


@pytest.mark.parametrize("name", ["zarr", "hdf5"])
def test_a_write_that_fails_ends_the_run_at_once_and_it_goes_on_later(
    name: str, embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = embedded_settings(format=name)
    whole = extract(prepare(embedded_settings(format=name))).content_digest
    plain, written = CacheWriter.publish, []

    def full(self: CacheWriter, shard: int, *arguments: Any, **options: Any) -> ShardRecord:
        if len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(shard)
        return plain(self, shard, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(CacheWriter, "publish", full)
        with pytest.raises(OSError, match="No space left"):
            extract(prepare(settings))
    assert (len(scan_journal(settings.cache).records), verify_cache(settings.cache).damage) == (
        2,
        [],
    )
    result = extract(prepare(settings))
    assert (result.resumed_shards, result.content_digest) == (2, whole)


def test_a_shard_that_has_gone_since_is_not_taken_for_done(embedded_settings: Make) -> None:
    settings = embedded_settings(limit=10, format="hdf5")
    extract(prepare(settings))
    (settings.cache / "shards" / "000000.h5").unlink()
    with pytest.raises(CacheError, match=r"000000\.h5: missing; mend it with `cache repair`"):
        extract(prepare(settings))


def published(root: Path) -> int:
    return len(scan_journal(root).records) if root.is_dir() else 0


@pytest.mark.parametrize("seed", range(3))
def test_killed_anywhere_it_resumes_to_the_same_content(
    seed: int, small_cache: Path, tmp_path: Path
) -> None:
    """kill -9 at a random moment after a shard; what is published then is whole, and only the rest
    is done again."""
    options = [
        "--layers",
        "-1,0",
        "--limit",
        "40",
        "--shard-tokens",
        "1500",
        "--dtype",
        "fp32",
        "--device",
        "cpu",
        "--json",
    ]
    process = CliProcess("extract", "--cache", tmp_path / "c", *options)
    wanted = 1 + seed  # shards in the journal before the kill
    until = time.monotonic() + 120
    while published(tmp_path / "c") < wanted and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(random.Random(seed).random() * 0.02)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = run_process("extract", "--cache", tmp_path / "c", *options)
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert wanted <= result["resumed_shards"] <= result["shards"]
    assert result["content_digest"] == open_cache(small_cache).content_digest
    assert open_cache(tmp_path / "c").content_digest == open_cache(small_cache).content_digest


def test_bf16_states_are_stored_as_the_teacher_gave_them(embedded_settings: Make) -> None:
    settings = embedded_settings(limit=2, dtype="bf16")
    extract(prepare(settings))
    assert open_cache(settings.cache)[0].hidden_states[-1].dtype == ml_dtypes.bfloat16
