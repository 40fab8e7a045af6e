"""New codecs for an exact cache; lossy layers are never encoded again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cache import CacheError, open_cache
from cache.upkeep.convert import convert_cache
from pipeline.codec_fit.measures import relative_error
from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.errors import InputError
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.teacher.shape import decoder_config
from pipeline.teacher.source import find_teacher
from pipeline.upkeep import recode
from pipeline.upkeep.recode import new_codecs
from pipeline.upkeep.settings import RecodeSettings

Make = Callable[..., ExtractSettings]


def converted(source: Path, target: Path, **settings: object) -> Path:
    codecs = new_codecs(source, target, RecodeSettings(**settings))  # type: ignore[arg-type]
    convert_cache(source, target, codecs=codecs)
    return target


def error_of(exact: Path, other: Path, layer: int) -> float:
    with open_cache(exact) as cache, open_cache(other) as coded:
        pairs = [
            (cache.example(i).hidden_states[layer], coded.example(i).hidden_states[layer])
            for i in range(len(cache))
        ]
    return relative_error(*(np.concatenate(side) for side in zip(*pairs, strict=True)))


def test_the_cache_has_the_required_relative_error(small_cache: Path, tmp_path: Path) -> None:
    target = converted(small_cache, tmp_path / "c", codec=("klt",), fidelity=("rel=0.1",))
    assert error_of(small_cache, target, -1) == pytest.approx(0.1, rel=0.15)


def test_other_layers_keep_their_codec(small_cache: Path, tmp_path: Path) -> None:
    target = converted(small_cache, tmp_path / "c", codec=("-1:int8",))
    assert error_of(small_cache, target, 0) == 0
    assert 0 < error_of(small_cache, target, -1) < 0.02
    with open_cache(target) as cache:
        assert {layer: codec.name for layer, codec in cache.codecs.items()} == {
            -1: "int8",
            0: "bf16",
        }


def test_a_divergence_is_measured_with_the_caches_own_teacher(
    small_cache: Path, tmp_path: Path
) -> None:
    target = converted(
        small_cache, tmp_path / "c", codec=("-1:klt",), fidelity=("kl=0.02",), device="cpu"
    )
    with open_cache(target) as cache:
        measured = cache.codecs[-1].settings["found"]
        assert cache.identity["codec"]["-1"]["asked"] == "kl=0.02"
    assert 0.01 < measured["kl"] + measured["kl_error"] <= 0.02
    with pytest.raises(InputError, match=r"no \.safetensors weights in this folder"):
        new_codecs(
            small_cache,
            tmp_path / "d",
            RecodeSettings(codec=("-1:klt",), fidelity=("kl=0.02",), teacher=str(tmp_path)),
        )


def test_the_last_layer_is_recognised_by_its_positive_number(
    embedded_settings: Make, tmp_path: Path
) -> None:
    last = decoder_config(find_teacher(EMBEDDED_TEACHER).load_config()).num_hidden_layers
    settings = embedded_settings(layers=(last, 1))
    extract(prepare(settings))
    target = converted(
        settings.cache, tmp_path / "c", codec=(f"{last}:klt",), fidelity=("kl=0.02",), device="cpu"
    )
    with open_cache(target) as cache:
        assert cache.identity["codec"][str(last)]["asked"] == "kl=0.02"
    with pytest.raises(InputError, match="does not read layer 1"):
        new_codecs(
            settings.cache, tmp_path / "d", RecodeSettings(codec=("1:klt",), fidelity=("kl=0.02",))
        )


def test_impossible_requests_are_refused_before_codecs_are_fitted(
    small_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recode, "calibrate_on_cache", None)
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    settings = RecodeSettings(codec=("klt",))
    refused = {
        small_cache / "in": "its own folder",
        tmp_path / "file": "is a file",
        tmp_path / "full": "it contains 'x'",
    }
    for target, message in refused.items():
        with pytest.raises(CacheError, match=message):
            new_codecs(small_cache, target, settings)
    with pytest.raises(InputError, match="the teacher is not needed"):
        new_codecs(small_cache, tmp_path / "c", RecodeSettings(codec=("klt",), teacher="x"))
    monkeypatch.setattr("cache.codecs.pages.MAX_ROWS", 100)
    with pytest.raises(CacheError, match="too large for klt"):
        new_codecs(small_cache, tmp_path / "c", settings)


def test_without_requirements_no_codec_is_new(small_cache: Path, tmp_path: Path) -> None:
    assert new_codecs(small_cache, tmp_path / "c", RecodeSettings()) == {}
    assert new_codecs(small_cache, tmp_path / "c", RecodeSettings(codec=("bf16",))) == {}


def test_a_lossy_layer_is_not_encoded_again(small_cache: Path, tmp_path: Path) -> None:
    lossy = converted(small_cache, tmp_path / "lossy", codec=("int8",))
    for settings in (
        RecodeSettings(codec=("klt",)),
        RecodeSettings(codec=("bf16",)),
        RecodeSettings(codec=("0:klt",), bits=("2",)),
    ):
        with pytest.raises(CacheError, match="is stored as int8, which cannot be undone"):
            new_codecs(lossy, tmp_path / "d", settings)
    assert new_codecs(lossy, tmp_path / "d", RecodeSettings(codec=("int8",))) == {}


def test_an_interrupted_conversion_keeps_its_codecs(
    small_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"codec": ("klt",), "bits": ("2.5",)}
    whole = converted(small_cache, tmp_path / "whole", **settings)
    cut = shutil.copytree(whole, tmp_path / "cut")
    journal = (cut / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "journal.jsonl").write_bytes(b"".join(journal[:2]))

    def refuse(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(recode, "calibrate_on_cache", refuse)
    converted(small_cache, cut, **settings)
    with open_cache(whole) as first, open_cache(cut) as second:
        assert first.content_digest == second.content_digest
    with pytest.raises(AssertionError, match="fitted again"):
        new_codecs(small_cache, cut, RecodeSettings(codec=("klt",), bits=("2",)))
