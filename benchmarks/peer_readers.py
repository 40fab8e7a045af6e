"""The readers that `cache_read.py` compares: the limit, those of peers, libraries, and this cache.

A reader is created from the folder that `write_all` has filled, and called with an example's index;
it returns copies of token ids, loss mask and hidden states.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import tensorstore
import torch
import zarr
import zarrs  # noqa: F401  registers its codec pipeline
from safetensors.torch import load_file, save_file
from zarr.storage import LocalStore

from cache import Example, Manifest, open_cache, write_cache
from cache.codecs.bf16 import Bf16
from cache.containers import CONTAINER_NAMES
from cache.shard.content import shard_of_examples

SHARD_EXAMPLES = 150
ARRAYS = ("input_ids", "loss_mask", "hidden_states/-1")
Reader = Callable[[int], Any]


def write_all(folder: Path, examples: list[Example]) -> None:
    """Write the same examples in the format of every reader."""
    (folder / "attachments").mkdir()
    for name in CONTAINER_NAMES:
        _write_cache(folder / name, examples, name, folder / "attachments")
    np.save(folder / "starts.npy", np.cumsum([0, *map(len, examples)]))
    for name, parts in {
        "input_ids": [example.input_ids for example in examples],
        "loss_mask": [example.loss_mask for example in examples],
        "states": [example.hidden_states[-1].view(np.uint16) for example in examples],
    }.items():
        np.save(folder / f"{name}.npy", np.concatenate(parts))
    for kind in ("safetensors", "torch"):
        (folder / kind).mkdir()
    for index, example in enumerate(examples):
        tensors = {
            "input_ids": torch.from_numpy(example.input_ids),
            "loss_mask": torch.from_numpy(example.loss_mask),
            "states": (
                torch.from_numpy(example.hidden_states[-1].view(np.uint16)).view(torch.bfloat16)
            ),
        }
        save_file(tensors, folder / "safetensors" / f"{index}.safetensors")
        torch.save(tensors, folder / "torch" / f"{index}.pt")


def _write_cache(root: Path, examples: list[Example], name: str, attachments: Path) -> None:
    shards = [examples[i : i + SHARD_EXAMPLES] for i in range(0, len(examples), SHARD_EXAMPLES)]
    width = examples[0].hidden_states[-1].shape[1]
    manifest = Manifest(
        format=name, layers=(-1,), codecs=("bf16",), hidden_size=width, vocab_size=1000,
        end_token_id=0, shards=len(shards), examples=len(examples),
        tokens=sum(map(len, examples)), shard_tokens=65536,
        identity={"codec": {"-1": "bf16"}}, provenance={}, attachments=(),
    )  # fmt: skip
    with write_cache(root, manifest, attachments) as writer:
        for number, shard in enumerate(shards):
            writer.publish(number, shard_of_examples(shard, {-1: Bf16()}))


def memory_map(folder: Path) -> Reader:
    """Copy from memory maps of the arrays (the limit)."""
    starts = np.load(folder / "starts.npy").tolist()
    maps = [
        np.load(folder / f"{name}.npy", mmap_mode="r")
        for name in ("input_ids", "loss_mask", "states")
    ]
    return lambda index: [np.array(values[starts[index] : starts[index + 1]]) for values in maps]


def safetensors_files(folder: Path) -> Reader:
    """Read one file per example, as speculators does."""
    return lambda index: load_file(folder / "safetensors" / f"{index}.safetensors")


def torch_files(folder: Path) -> Reader:
    """Read one file per example, as SpecForge does; here without pickled code."""
    return lambda index: torch.load(folder / "torch" / f"{index}.pt", weights_only=True)


def _in_shards(folder: Path, open_arrays: Callable[[Path], list[Any]], suffix: str) -> Reader:
    """Read slices of this cache's shards through another library."""
    starts = np.load(folder / "starts.npy").tolist()
    shards = [open_arrays(path) for path in sorted((folder / suffix / "shards").iterdir())]

    def read(index: int) -> list[Any]:
        shard = index // SHARD_EXAMPLES
        base = starts[shard * SHARD_EXAMPLES]
        return [
            np.asarray(values[starts[index] - base : starts[index + 1] - base])
            for values in shards[shard]
        ]

    return read


def plain_h5py(folder: Path) -> Reader:
    """Read this cache's HDF5 shards through h5py."""

    def open_arrays(path: Path) -> list[Any]:
        file = h5py.File(path)
        return [file[name] for name in ARRAYS]

    return _in_shards(folder, open_arrays, "hdf5")


def plain_zarr(folder: Path) -> Reader:
    """Read this cache's Zarr shards through zarr-python."""
    return _in_shards(
        folder,
        lambda path: [zarr.open_group(LocalStore(path), mode="r")[name] for name in ARRAYS],
        "zarr",
    )


def zarrs_pipeline(folder: Path) -> Reader:
    """Read this cache's Zarr shards through zarr-python with the zarrs codec pipeline (Rust)."""
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    return plain_zarr(folder)


def plain_tensorstore(folder: Path) -> Reader:
    """Read this cache's Zarr shards through tensorstore."""

    class Lazy:
        def __init__(self, path: Path) -> None:
            spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
            self._values = tensorstore.open(spec, open=True).result()

        def __getitem__(self, rows: slice) -> Any:
            return self._values[rows].read().result()

    return _in_shards(folder, lambda path: [Lazy(path / name) for name in ARRAYS], "zarr")


def this_cache_zarr(folder: Path) -> Reader:
    """Read with `open_cache(…)[i]`: checksums compared, then bytes read directly."""
    return open_cache(folder / "zarr").example


def this_cache_hdf5(folder: Path) -> Reader:
    """Read with `open_cache(…)[i]`: checksums compared, then bytes read directly."""
    return open_cache(folder / "hdf5").example


READERS: dict[str, Callable[[Path], Reader]] = {
    "copy from a memory map (limit)": memory_map,
    "safetensors, one file per example": safetensors_files,
    "torch.save, one file per example": torch_files,
    "plain h5py": plain_h5py,
    "plain zarr-python": plain_zarr,
    "zarr-python with zarrs": zarrs_pipeline,
    "tensorstore": plain_tensorstore,
    "this cache, zarr": this_cache_zarr,
    "this cache, hdf5": this_cache_hdf5,
}


def make_examples(megabytes: int, width: int = 896) -> list[Example]:
    """Return random examples of 100 to 800 tokens, with `megabytes` MB of bfloat16 in total."""
    rng = np.random.default_rng(0)
    examples: list[Example] = []
    remaining = megabytes * 1_000_000
    while remaining > 0:
        tokens = int(rng.integers(100, 800))
        bits = rng.integers(0, 1 << 15, (tokens, width), np.uint16)
        ids = rng.integers(0, 1000, tokens, np.int32)
        examples.append(
            Example(str(len(examples)), ids, ids > 500, {-1: bits.view(ml_dtypes.bfloat16)})
        )
        remaining -= bits.nbytes
    return examples
