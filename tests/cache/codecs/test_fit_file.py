"""The file of a codec's fit: read back, identified by its bytes, refused if damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from cache.codecs.fit_file import fit_bytes, fit_name, identity_of, read_fit, write_fits
from cache.errors import DamagedCacheError
from cache.sealed_json import canonical_json
from tests.cache.codecs.klt_states import bits, fitted, make_states, require_same


def test_a_fit_is_read_back_from_its_file(tmp_path: Path) -> None:
    codec, states = fitted(), make_states(100, seed=3)
    write_fits(tmp_path, {-1: codec})
    file = tmp_path / "codecs" / fit_name(-1)
    read = read_fit(file, "klt", 24)
    assert identity_of(read) == identity_of(codec)
    require_same(read.encode(states), codec.encode(states))
    np.testing.assert_array_equal(
        bits(read.decode(codec.encode(states))), bits(codec.decode(codec.encode(states)))
    )
    for name, width in (("int8", 24), ("klt", 25)):
        with pytest.raises(DamagedCacheError, match="not a fit of the"):
            read_fit(file, name, width)


def test_a_fit_is_identified_by_the_bytes_of_its_file(tmp_path: Path) -> None:
    whole, file = fit_bytes(fitted(width=4)), tmp_path / fit_name(-1)
    size = int.from_bytes(whole[:8], "little")
    file.write_bytes(
        (size + 8).to_bytes(8, "little") + whole[8 : 8 + size] + b" " * 8 + whole[8 + size :]
    )
    read = read_fit(file, "klt", 4)
    assert fit_bytes(read) == file.read_bytes() != whole
    assert identity_of(read)["fit"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert fit_bytes(read.with_step(0.1, make_states(10, 4))) != file.read_bytes()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "settings", [{"asked": 5}, {"found": 5}, {"found": {"bits_per_value": "x"}}, 7, None]
)
def test_a_fit_with_invalid_settings_is_refused(settings: Any, tmp_path: Path) -> None:
    file = tmp_path / fit_name(-1)
    described = canonical_json({"name": "klt", "settings": settings, "value_type": "int8"}).decode()
    file.write_bytes(save(dict(fitted(width=4).parameters), metadata={"codec": described}))
    with pytest.raises(DamagedCacheError, match="not a fit of the klt codec"):
        read_fit(file, "klt", 4)


def test_a_damaged_fit_is_refused_or_has_another_identity(tmp_path: Path) -> None:
    codec, file, rng = fitted(width=4), tmp_path / "fit.safetensors", np.random.default_rng(0)
    whole = fit_bytes(codec)
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= int(rng.integers(1, 256))
        file.write_bytes(broken)
        try:
            assert identity_of(read_fit(file, "klt", 4)) != identity_of(codec)
        except DamagedCacheError:
            continue
    for size in range(0, len(whole), 7):
        file.write_bytes(whole[:size])
        with pytest.raises(DamagedCacheError):
            read_fit(file, "klt", 4)
