"""An exact cache gets new codecs; what has lost something already never loses more."""

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
from pipeline.upkeep.recode import RecodeSettings, new_codecs

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


def test_a_relative_error_that_was_asked_for_is_what_the_cache_has(
    small_cache: Path, tmp_path: Path
) -> None:
    target = converted(small_cache, tmp_path / "c", codec=("klt",), fidelity=("rel=0.1",))
    assert error_of(small_cache, target, -1) == pytest.approx(0.1, rel=0.15)


def test_layers_that_are_not_named_stay_as_they_are(small_cache: Path, tmp_path: Path) -> None:
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
        found = cache.codecs[-1].settings["found"]
        assert cache.identity["codec"]["-1"]["asked"] == "kl=0.02"
    assert 0.01 < found["kl"] + found["kl_error"] <= 0.02
    with pytest.raises(InputError):
        new_codecs(
            small_cache,
            tmp_path / "d",
            RecodeSettings(("-1:klt",), ("kl=0.02",), teacher=str(tmp_path)),
        )


def test_the_last_layer_is_known_by_any_of_its_numbers(
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
        new_codecs(settings.cache, tmp_path / "d", RecodeSettings(("1:klt",), ("kl=0.02",)))


def test_what_cannot_be_is_refused_before_anything_is_fitted(
    small_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recode, "calibrate_on_cache", None)
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    asked = RecodeSettings(codec=("klt",))
    refused = {
        small_cache / "in": "its own folder",
        tmp_path / "file": "is a file",
        tmp_path / "full": "holds 'x'",
    }
    for target, said in refused.items():
        with pytest.raises(CacheError, match=said):
            new_codecs(small_cache, target, asked)
    with pytest.raises(InputError, match="the teacher is not needed"):
        new_codecs(small_cache, tmp_path / "c", RecodeSettings(codec=("klt",), teacher="x"))
    monkeypatch.setattr("cache.codecs.pages.MAX_ROWS", 100)
    with pytest.raises(CacheError, match="too large for klt"):
        new_codecs(small_cache, tmp_path / "c", asked)


def test_nothing_asked_is_nothing_coded_anew(small_cache: Path, tmp_path: Path) -> None:
    assert new_codecs(small_cache, tmp_path / "c", RecodeSettings()) == {}
    assert new_codecs(small_cache, tmp_path / "c", RecodeSettings(codec=("bf16",))) == {}


def test_what_lost_something_is_not_coded_again(small_cache: Path, tmp_path: Path) -> None:
    lossy = converted(small_cache, tmp_path / "lossy", codec=("int8",))
    for asked in (
        RecodeSettings(codec=("klt",)),
        RecodeSettings(codec=("bf16",)),
        RecodeSettings(codec=("0:klt",), bits=("2",)),
    ):
        with pytest.raises(CacheError, match="is stored as int8, which cannot be undone"):
            new_codecs(lossy, tmp_path / "d", asked)
    assert new_codecs(lossy, tmp_path / "d", RecodeSettings(codec=("int8",))) == {}


def test_a_conversion_that_was_cut_short_goes_on_with_the_codecs_it_had(
    small_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"codec": ("klt",), "bits": ("2.5",)}
    whole = converted(small_cache, tmp_path / "whole", **asked)
    cut = shutil.copytree(whole, tmp_path / "cut")
    journal = (cut / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "journal.jsonl").write_bytes(b"".join(journal[:2]))

    def never(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(recode, "calibrate_on_cache", never)
    converted(small_cache, cut, **asked)
    with open_cache(whole) as first, open_cache(cut) as second:
        assert first.content_digest == second.content_digest
    with pytest.raises(AssertionError, match="fitted again"):
        new_codecs(small_cache, cut, RecodeSettings(codec=("klt",), bits=("2",)))
