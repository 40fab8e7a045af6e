"""The codecs as Zarr codecs: zarr-python reads decoded states, and checks their fit."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore, ZipStore

from cache import CacheError, open_cache
from cache.codecs import CodedStates
from tests.cache.shared_examples import make_shared


@pytest.mark.parametrize("codec", ["int8", "klt"])
@pytest.mark.parametrize("far", [0, 7])
def test_zarr_python_reads_decoded_rows(codec: str, far: int, tmp_path: Path) -> None:
    made = make_shared(far=far)
    root = made.write(tmp_path / "c", "zarr", codec)
    cache = open_cache(root)
    for shard in range(len(cache.records)):
        content = cache.shard_content(shard, cache.layers)
        group = zarr.open_group(LocalStore(root / "shards" / f"{shard:06d}.zarr"), mode="r")
        for layer in cache.layers:
            coded = content.hidden_states[layer]
            assert isinstance(coded, CodedStates)
            expected = cache.codecs[layer].decode(coded).astype(np.float32)
            array = group[f"hidden_states/{layer}"]
            assert (array.shape, array.dtype) == (expected.shape, np.float32)
            np.testing.assert_allclose(array[...], expected, rtol=2**-7, atol=1e-6)
            np.testing.assert_array_equal(array[3:7, ::2], array[...][3:7, ::2])
            np.testing.assert_array_equal(array[2], array[...][2])
            exact = np.concatenate(
                [segment.hidden_states[layer] for segment in made.segments[shard]]
            ).astype(np.float32)
            np.testing.assert_allclose(array[...], exact, atol=0.4, rtol=0.02)
            if codec == "klt":
                kept = coded.exact_rows
                assert kept is not None
                np.testing.assert_array_equal(array[...][kept], exact[kept])


def test_zarr_python_finds_the_codec_in_another_process(tmp_path: Path) -> None:
    root = make_shared().write(tmp_path / "c", "zarr", "klt")
    shard = root / "shards" / "000000.zarr"
    script = (
        f"import zarr; print(zarr.open_group({str(shard)!r},"
        " mode='r')['hidden_states/-1'][...].tobytes().hex())"
    )
    process = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    expected = zarr.open_group(LocalStore(shard), mode="r")["hidden_states/-1"][...]
    np.testing.assert_allclose(
        np.frombuffer(bytes.fromhex(process.stdout), np.float32).reshape(expected.shape),
        expected,
        rtol=2**-7,
    )


@pytest.mark.parametrize("codec", ["int8", "klt"])
def test_zarr_python_reports_a_missing_fit(codec: str, tmp_path: Path) -> None:
    root = make_shared().write(tmp_path / "c", "zarr", codec)
    (root / "attachments" / "codecs" / "layer-1.safetensors").unlink()
    group = zarr.open_group(LocalStore(root / "shards" / "000000.zarr"), mode="r")
    with pytest.raises(CacheError, match=f"not in a cache that has a fit of the {codec} codec"):
        group["hidden_states/-1"][...]
    assert group["hidden_states/0"][...].shape == (22, 8)
    with pytest.raises(CacheError, match="fit"):
        zarr.open_group(
            LocalStore((root / "shards").rename(tmp_path / "elsewhere") / "000000.zarr"), mode="r"
        )["hidden_states/0"][...]


@pytest.mark.parametrize("codec", ["int8", "klt"])
def test_a_store_outside_a_folder_is_refused(codec: str, tmp_path: Path) -> None:
    shard = make_shared().write(tmp_path / "c", "zarr", codec) / "shards" / "000000.zarr"
    with zipfile.ZipFile(tmp_path / "shard.zip", "w") as packed:
        for file in shard.rglob("*"):
            packed.write(file, file.relative_to(shard))
    with pytest.raises(CacheError, match="only a cache in a local folder"):
        zarr.open_group(ZipStore(tmp_path / "shard.zip"), mode="r")["hidden_states/-1"][...]


@pytest.mark.parametrize("codec", ["int8", "klt"])
def test_zarr_python_refuses_the_fit_of_another_cache(codec: str, tmp_path: Path) -> None:
    root, other = (
        make_shared(seed=seed).write(tmp_path / str(seed), "zarr", codec) for seed in (0, 1)
    )
    fit = "attachments/codecs/layer-1.safetensors"
    (root / fit).write_bytes((other / fit).read_bytes())
    with pytest.raises(CacheError, match=f"not the fit of this shard's {codec} codec"):
        zarr.open_group(LocalStore(root / "shards" / "000000.zarr"), mode="r")["hidden_states/-1"][
            ...
        ]
    with pytest.raises(CacheError):
        open_cache(root)
