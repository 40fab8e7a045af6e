"""Comparison with the live teacher: its own states are accepted, others are not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen2Model

from cache import Example, open_cache, write_cache
from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.errors import InputError
from pipeline.extract import padded_batch, prefix_pass
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.teacher.hooks import HiddenStateHooks
from pipeline.teacher.model import Teacher
from pipeline.teacher.prefix_kv import PrefixKV
from pipeline.upkeep.recheck import recheck
from pipeline.upkeep.settings import RecheckSettings
from tests.cache.examples import make_content
from tests.pipeline.recorded_progress import RecordedProgress

Make = Callable[..., ExtractSettings]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_stored_states_are_the_teachers(dtype: str, embedded_settings: Make) -> None:
    settings = embedded_settings(limit=20, dtype=dtype)
    extract(prepare(settings))
    progress = RecordedProgress()
    result = recheck(settings.cache, RecheckSettings(sample=8, device="cpu"), progress)
    assert progress.stages == {"compare": (8, 8)}
    assert [layer.layer for layer in result.layers] == [-1, 0]
    assert all(
        layer.within_tolerance and layer.relative_error <= layer.worst_relative_error < 0.01
        for layer in result.layers
    )
    assert result.examples == 8
    everything = recheck(settings.cache, RecheckSettings(sample=10**6, device="cpu"))
    assert (everything.examples, everything.tokens) == (
        20,
        int(open_cache(settings.cache).lengths.sum()),
    )


def rewritten(source: Path, target: Path, change: Callable[[Example], None]) -> Path:
    """Write a cache with other values and valid checksums."""
    cache = open_cache(source)
    with write_cache(target, cache.manifest, source / "attachments") as writer:
        first = 0
        for record in cache.records:
            examples = cache[first : first + len(record.row_ids)]
            for example in examples:
                change(example)
            writer.publish(record.shard, make_content(examples))
            first += len(examples)
    return target


def next_tokens(example: Example) -> None:
    example.hidden_states[-1][:] = np.roll(example.hidden_states[-1], 1, axis=0)


def one_example(example: Example) -> None:
    if example.row_id == "3":
        example.hidden_states[-1][5] = 0


@pytest.mark.parametrize("change", [next_tokens, one_example])
def test_states_of_other_tokens_are_detected_in_their_layer(
    change: Callable[[Example], None], small_cache: Path, tmp_path: Path
) -> None:
    result = recheck(
        rewritten(small_cache, tmp_path / "c", change), RecheckSettings(sample=40, device="cpu")
    )
    last, embeddings = result.layers
    assert (last.layer, last.within_tolerance) == (-1, False)
    assert embeddings.within_tolerance
    if change is one_example:
        assert last.worst_row_id == "3"
        assert open_cache(tmp_path / "c")[last.worst_example].row_id == "3"


def test_a_live_teacher_that_is_not_finite_is_never_within_tolerance(
    small_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Qwen2Model.forward

    def broken(self: Qwen2Model, **inputs: Any) -> Any:
        output = plain(self, **inputs)
        embeddings = output.hidden_states[0].clone()
        embeddings[0, -1, 0] = float("nan")
        output["hidden_states"] = (embeddings, *output.hidden_states[1:])
        return output

    monkeypatch.setattr(Qwen2Model, "forward", broken)
    last, embeddings = recheck(small_cache, RecheckSettings(sample=3, device="cpu")).layers
    assert (last.within_tolerance, embeddings.within_tolerance) == (True, False)
    assert np.isfinite(embeddings.relative_error)  # JSON has no NaN


def test_another_teacher_is_refused(small_cache: Path, tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED_TEACHER, tmp_path / "teacher")
    weights = bytearray((tmp_path / "teacher/model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "teacher/model.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match=r"teacher_weights is .*, but the cache has"):
        recheck(small_cache, RecheckSettings(sample=1, teacher=str(tmp_path / "teacher")))


def wrong_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Double the positions of the tokens in a batch."""
    plain = padded_batch.read_with_prefixes

    def stretched(teacher: Teacher, *batch: Any) -> dict[int, torch.Tensor]:
        def doubled(
            hooks: HiddenStateHooks, indices: Any = None, **inputs: Any
        ) -> dict[int, torch.Tensor]:
            inputs["position_ids"] = 2 * inputs["position_ids"]
            return read(hooks, indices, **inputs)

        read = HiddenStateHooks.read
        with monkeypatch.context() as patch:
            patch.setattr(HiddenStateHooks, "read", doubled)
            return plain(teacher, *batch)

    monkeypatch.setattr(padded_batch, "read_with_prefixes", stretched)


def wrong_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exchange the states of the layers."""
    plain = HiddenStateHooks.read

    def exchanged(
        hooks: HiddenStateHooks, indices: Any = None, **inputs: Any
    ) -> dict[int, torch.Tensor]:
        states = plain(hooks, indices, **inputs)
        return dict(zip(states, reversed(list(states.values())), strict=True))

    monkeypatch.setattr(HiddenStateHooks, "read", exchanged)


def wrong_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero the keys and values of shared prefixes."""
    plain = prefix_pass.extend_prefix

    def forgetful(*arguments: Any) -> Any:
        states, context = plain(*arguments)
        return states, PrefixKV(
            [(torch.zeros_like(keys), torch.zeros_like(values)) for keys, values in context.blocks]
        )

    monkeypatch.setattr(prefix_pass, "extend_prefix", forgetful)


@pytest.mark.parametrize("broken", [wrong_positions, wrong_blocks, wrong_context])
def test_the_check_is_independent_of_the_extract(
    broken: Callable[[pytest.MonkeyPatch], None],
    embedded_settings: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = embedded_settings(limit=30)
    prepared = prepare(settings)
    assert prepared.sharing.prefixes
    broken(monkeypatch)  # stays broken while the cache is checked
    extract(prepared)
    result = recheck(settings.cache, RecheckSettings(sample=30, device="cpu"))
    assert not all(layer.within_tolerance for layer in result.layers)
