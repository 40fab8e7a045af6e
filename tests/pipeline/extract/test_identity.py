"""A cache of another teacher, data set or setting is refused before a model is loaded."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cache import CacheError, write_cache
from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.extract.plan import ExtractPlan
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from tests.cache.examples import rewrite_manifest
from tests.pipeline.recorded_progress import InterruptAfterShard

Make = Callable[..., ExtractSettings]
IDENTITY = [
    "teacher_weights",
    "teacher_config",
    "teacher_kind",
    "tokenizer",
    "dataset",
    "tokens",
    "template",
    "loss_on",
    "limit",
    "max_tokens",
    "condition",
    "compute_dtype",
    "sharing",
    "lm_head",
    "codec",
]


def refuse_to_load(*_: object, **__: object) -> None:
    raise AssertionError("a model was loaded before the identity was compared")


@pytest.mark.parametrize(
    "change",
    [{"limit": 5}, {"template": "chat"}, {"layers": (-1,)}, {"loss_on": "all"}, {"dtype": "bf16"}],
)
def test_changed_settings_are_refused(
    change: dict[str, object], embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = embedded_settings(limit=4)
    extract(prepare(settings))
    monkeypatch.setattr("pipeline.extract.worker.load_teacher", refuse_to_load)
    changed = embedded_settings(**({"limit": 4} | change | {"cache": settings.cache}))
    with pytest.raises(CacheError, match=r"was .*, now it is"):
        extract(prepare(changed))


@pytest.mark.parametrize("field", IDENTITY)
def test_every_field_of_the_identity_is_compared(
    field: str, embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = embedded_settings(limit=4)
    plan = prepare(settings)
    with write_cache(settings.cache, plan.manifest, tokenizer_attachment(plan, settings.cache)):
        pass  # the cache is begun
    assert sorted(plan.manifest.identity) == sorted(IDENTITY)
    now = plan.manifest.identity[field]
    rewrite_manifest(settings.cache, lambda content: content["identity"].update({field: "other"}))
    monkeypatch.setattr("pipeline.extract.worker.load_teacher", refuse_to_load)
    with pytest.raises(CacheError, match=re.escape(f"{field} was 'other', now it is {now!r}")):
        extract(prepare(settings))


def tokenizer_attachment(plan: ExtractPlan, root: Path) -> Path:
    plan.tokenizer.save_pretrained(root.parent / "attached" / "tokenizer")
    return root.parent / "attached"


def test_a_moved_teacher_has_the_same_identity(embedded_settings: Make, tmp_path: Path) -> None:
    teacher = shutil.copytree(EMBEDDED_TEACHER, tmp_path / "teacher")
    settings = embedded_settings(limit=8, teacher=str(teacher), shard_tokens=500)
    with pytest.raises(KeyboardInterrupt):
        extract(prepare(settings), InterruptAfterShard())
    moved = shutil.move(teacher, tmp_path / "moved")
    assert extract(prepare(replace(settings, teacher=str(moved)))).resumed_shards > 0
