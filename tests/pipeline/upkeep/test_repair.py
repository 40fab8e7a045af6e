"""Repair with the live teacher: only lost shards are extracted, and their content is the same."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cache import CacheError, open_cache
from cache.containers import CONTAINER_NAMES
from cache.upkeep.verify import verify_cache
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.errors import RunError
from pipeline.extract.forward import TeacherPass
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.progress import NO_PROGRESS
from pipeline.teacher.model import Teacher
from pipeline.upkeep import lost_shards, original_extract
from pipeline.upkeep.repair import repair
from pipeline.upkeep.settings import RepairSettings
from tests.cache.examples import rewrite_manifest
from tests.cache.faults import files_of, flip_byte, remove, shard_paths
from tests.pipeline.recorded_progress import InterruptAfterShard, RecordedProgress

Make = Callable[..., ExtractSettings]


@pytest.fixture(scope="module")
def extracted(embedded_settings: Make) -> dict[str, Path]:
    caches = {}
    for name in CONTAINER_NAMES:
        settings = embedded_settings(limit=25, shard_tokens=600, batch_tokens=777, format=name)
        extract(prepare(settings))
        caches[name] = settings.cache
    return caches


@pytest.fixture(params=CONTAINER_NAMES)
def root(request: pytest.FixtureRequest, extracted: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(extracted[request.param], tmp_path / "c")


def test_only_damaged_shards_are_extracted_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_cache(root).content_digest
    untouched = {path: path.stat().st_mtime_ns for path in shard_paths(root)[3].rglob("*")}
    flip_byte(
        max(path for path in files_of(root)["values"] if "000001" in str(path)), random.Random(0)
    )
    remove(shard_paths(root)[4])
    (root / "manifest.json").unlink()
    (root / "attachments" / "tokenizer" / "tokenizer.json").write_text("{}")
    read: list[str] = []

    class RecordedPass(TeacherPass):
        def __init__(
            self, teacher: Teacher, examples: Any, sharing: Any, batch_tokens: int, **options: Any
        ) -> None:
            assert batch_tokens == 777
            super().__init__(teacher, examples, sharing, batch_tokens, **options)

        def read(self, indices: Any, stored: Any = None, progress: Any = NO_PROGRESS) -> Any:
            states = super().read(indices, stored, progress)
            read.extend(states.row_ids)
            return states

    monkeypatch.setattr(lost_shards, "TeacherPass", RecordedPass)
    progress = RecordedProgress()
    result = repair(RepairSettings(cache=root, device="cpu"), progress)
    store = open_cache(root)
    assert (result.shards, result.same_content, result.content_digest) == ([1, 4], True, before)
    assert len(result.found) == 4
    assert read == [row for shard in (1, 4) for row in store.records[shard].row_ids]
    assert progress.stages["extract"] == (result.tokens, result.tokens)
    assert verify_cache(root).whole
    assert {path: path.stat().st_mtime_ns for path in untouched} == untouched


def test_a_shard_lost_with_its_journal_line_is_extracted_in_the_same_batches(root: Path) -> None:
    before = open_cache(root).content_digest
    lines = (root / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (root / "journal.jsonl").write_bytes(b"".join([*lines[:2], *lines[4:]]))  # shards 1 and 2
    remove(shard_paths(root)[2])
    result = repair(RepairSettings(cache=root, device="cpu"))
    assert (result.restored, result.shards, result.unknown_shards) == ([1], [2], [2])
    assert result.content_digest == before
    assert open_cache(root).records[2].provenance["batch_tokens"] == 777


def test_without_journal_lines_the_batch_size_comes_from_the_manifest(root: Path) -> None:
    before = open_cache(root).content_digest
    lines = (root / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (root / "journal.jsonl").write_bytes(lines[0])
    shutil.rmtree(root / "shards")
    assert repair(RepairSettings(cache=root, device="cpu")).content_digest == before


@pytest.mark.parametrize(
    "change",
    [
        {"provenance": {}},
        {"provenance": {"teacher": 5, "dataset": 6}},
        {"identity": {}},
        {"shard_tokens": 0},
    ],
)
def test_a_cache_without_recorded_settings_is_refused(
    change: dict[str, object], root: Path
) -> None:
    rewrite_manifest(root, lambda content: content.update(change))
    remove(shard_paths(root)[0])
    with pytest.raises(CacheError, match="does not say"):
        repair(RepairSettings(cache=root))


def test_room_is_required_for_the_growth_and_one_staged_shard(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in files_of(root)["values"]:
        if path.suffix == ".h5" or "-1" in path.parts:
            flip_byte(path, random.Random(0))
    largest = max(record.bytes for record in open_cache(root).records)
    needed: list[int] = []
    monkeypatch.setattr(lost_shards, "require_room", lambda _root, size: needed.append(size))
    repair(RepairSettings(cache=root, device="cpu"))
    (size,) = needed
    assert largest <= size < largest + (17 << 20)


def test_a_whole_cache_is_left_alone_and_no_model_loaded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(original_extract, "prepare", None)
    result = repair(RepairSettings(cache=root))
    assert (result.found, result.shards, result.tokens) == ([], [], 0)


def test_repair_finishes_an_interrupted_extract(embedded_settings: Make) -> None:
    settings = embedded_settings(limit=25, shard_tokens=600)

    with pytest.raises(KeyboardInterrupt):
        extract(prepare(settings), InterruptAfterShard())
    assert repair(RepairSettings(cache=settings.cache, device="cpu")).same_content
    whole = replace(settings, cache=settings.cache.with_name("whole"))
    assert extract(prepare(whole)).content_digest == open_cache(settings.cache).content_digest


def test_moved_teacher_and_data_set_are_accepted_and_others_refused(
    embedded_settings: Make, tmp_path: Path
) -> None:
    teacher = shutil.copytree(EMBEDDED_TEACHER, tmp_path / "teacher")
    dataset = shutil.copy(EMBEDDED_DATASET, tmp_path / "rows.jsonl")
    settings = embedded_settings(
        limit=10, shard_tokens=600, teacher=str(teacher), dataset=str(dataset)
    )
    before = extract(prepare(settings)).content_digest
    remove(shard_paths(settings.cache)[0])
    moved = shutil.move(teacher, tmp_path / "moved")
    shutil.move(dataset, tmp_path / "moved.jsonl")
    other = tmp_path / "other.jsonl"
    other.write_text("".join((tmp_path / "moved.jsonl").read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(
        CacheError, match=r"dataset was .*, now it is .* name the same teacher and data set"
    ):
        repair(RepairSettings(cache=settings.cache, teacher=str(moved), dataset=str(other)))
    result = repair(
        RepairSettings(
            cache=settings.cache,
            teacher=str(moved),
            dataset=str(tmp_path / "moved.jsonl"),
            device="cpu",
        )
    )
    assert result.content_digest == before


def test_other_numbers_are_refused_unless_accepted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_cache(root).content_digest
    remove(shard_paths(root)[2])
    plain = Teacher.hidden_states

    def another_machine(self: Teacher, *arguments: torch.Tensor) -> dict[int, torch.Tensor]:
        return {layer: states * 1.01 for layer, states in plain(self, *arguments).items()}

    monkeypatch.setattr(Teacher, "hidden_states", another_machine)
    with pytest.raises(RunError, match=r"shard 2: its content digest is .*--allow-other-numbers"):
        repair(RepairSettings(cache=root, device="cpu"))
    assert verify_cache(root).damaged_shards() == [2]
    result = repair(RepairSettings(cache=root, device="cpu", allow_other_numbers=True))
    assert not result.same_content
    assert result.content_digest == open_cache(root).content_digest != before
    assert verify_cache(root).whole
