"""Caches written by version 0.1 are read with the same values as by version 0.1."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import open_cache
from cache.containers import CONTAINER_NAMES
from cache.shard.writer import restore_record
from cache.upkeep.convert import convert_cache
from cache.upkeep.verify import verify_cache
from tests.conftest import ROOT

STORED = ROOT / "tests" / "fixtures" / "cache-0.1"
EXPECTED: dict[str, Any] = json.loads((STORED / "expected.json").read_text())
every_container = pytest.mark.parametrize("container", CONTAINER_NAMES)


def require_expected(root: Path) -> None:
    cache = open_cache(root)
    assert cache.content_digest == EXPECTED["content_digest"]
    assert (list(cache.layers), list(cache.manifest.codecs)) == (
        EXPECTED["layers"],
        EXPECTED["codecs"],
    )
    assert len(cache) == len(EXPECTED["examples"])
    for index, expected in enumerate(EXPECTED["examples"]):
        example, coded = cache[index], cache.coded_example(index).hidden_states
        assert example.row_id == expected["row_id"]
        assert example.input_ids.tolist() == expected["input_ids"]
        assert example.loss_mask.tolist() == [bool(item) for item in expected["loss_mask"]]
        assert cache.text(index) == expected["text"]
        for layer, codec in cache.manifest.codec_of.items():
            assert coded[layer].values.tolist() == expected["coded"][str(layer)]
            states, wanted = example.hidden_states[layer], expected["hidden_states"][str(layer)]
            if codec == "klt":  # sums of products: their last bit depends on the machine
                np.testing.assert_allclose(states.astype(np.float32), wanted, rtol=2**-7, atol=1e-6)
            else:
                assert states.astype(np.float32).tolist() == wanted


@every_container
def test_a_stored_cache_has_the_stored_values(container: str) -> None:
    require_expected(STORED / container)


@every_container
def test_a_stored_cache_verifies(container: str) -> None:
    verification = verify_cache(STORED / container)
    assert verification.whole and not verification.damage and not verification.strays
    assert verification.content_digest == EXPECTED["content_digest"]


@every_container
def test_a_stored_cache_converts_to_the_other_container(container: str, tmp_path: Path) -> None:
    (other,) = set(CONTAINER_NAMES) - {container}
    convert_cache(STORED / container, tmp_path / "converted", container=other)
    require_expected(tmp_path / "converted")


@every_container
def test_a_journal_line_is_restored_from_a_stored_shard(container: str) -> None:
    cache = open_cache(STORED / container)
    for record in cache.records:
        restored = restore_record(STORED / container, cache.manifest, record.shard)
        assert restored is not None and restored.line() == record.line()


@every_container
def test_changed_bytes_of_a_stored_cache_are_refused(container: str, tmp_path: Path) -> None:
    root = shutil.copytree(STORED / container, tmp_path / "cache")
    files = (path for path in (root / "shards").rglob("*") if path.is_file())
    file = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert not verify_cache(root).whole
