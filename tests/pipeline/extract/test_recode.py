"""An exact cache gets new codecs; what has lost something already never loses more."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cache import CacheError, open_cache
from cache.convert import convert_cache
from pipeline.errors import InputError
from pipeline.extract import recode
from pipeline.extract.recode import RecodeSettings, new_codecs
from pipeline.fidelity.measures import relative_error


def converted(source: Path, target: Path, **settings: object) -> Path:
    codecs = new_codecs(source, target, RecodeSettings(**settings))  # type: ignore[arg-type]
    convert_cache(source, target, codecs=codecs)
    return target


def error_of(exact: Path, other: Path, layer: int) -> float:
    with open_cache(exact) as cache, open_cache(other) as coded:
        pairs = [(cache.example(i).hidden_states[layer], coded.example(i).hidden_states[layer]) for i in range(len(cache))]
    return relative_error(*(np.concatenate(side) for side in zip(*pairs, strict=True)))


def test_a_relative_error_that_was_asked_for_is_what_the_cache_has(small_cache: Path, tmp_path: Path) -> None:
    target = converted(small_cache, tmp_path / "c", codec=("klt",), fidelity=("rel=0.1",))
    assert error_of(small_cache, target, -1) == pytest.approx(0.1, rel=0.15)


def test_layers_that_are_not_named_stay_as_they_are(small_cache: Path, tmp_path: Path) -> None:
    target = converted(small_cache, tmp_path / "c", codec=("-1:int8",))
    assert error_of(small_cache, target, 0) == 0
    assert 0 < error_of(small_cache, target, -1) < 0.02
    with open_cache(target) as cache:
        assert {layer: codec.name for layer, codec in cache.codecs.items()} == {-1: "int8", 0: "bf16"}


def test_a_divergence_is_measured_with_the_caches_own_teacher(small_cache: Path, tmp_path: Path) -> None:
    target = converted(small_cache, tmp_path / "c", codec=("-1:klt",), fidelity=("kl=0.02",), device="cpu")
    with open_cache(target) as cache:
        found = cache.codecs[-1].settings["found"]
        assert cache.identity["codec"]["-1"]["asked"] == "kl=0.02"
    assert 0.01 < found["kl"] + found["kl_error"] <= 0.02
    with pytest.raises(InputError):
        new_codecs(small_cache, tmp_path / "d", RecodeSettings(("-1:klt",), ("kl=0.02",), teacher=str(tmp_path)))


def test_nothing_asked_is_nothing_coded_anew(small_cache: Path, tmp_path: Path) -> None:
    assert new_codecs(small_cache, tmp_path / "c", RecodeSettings()) == {}
    assert new_codecs(small_cache, tmp_path / "c", RecodeSettings(codec=("bf16",))) == {}


def test_what_lost_something_is_not_coded_again(small_cache: Path, tmp_path: Path) -> None:
    lossy = converted(small_cache, tmp_path / "lossy", codec=("int8",))
    for asked in (RecodeSettings(codec=("klt",)), RecodeSettings(codec=("bf16",)), RecodeSettings(codec=("0:klt",), bits=("2",))):
        with pytest.raises(CacheError, match="is stored as int8, and what that lost cannot come back"):
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
