"""docs/FORMAT.md suffices to read a cache: a reader written from it, without this package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import xxhash
from pcodec.wrapped import FileDecompressor
from safetensors.numpy import load_file

from cache import open_cache
from cache.codecs import CODEC_NAMES
from cache.containers import CONTAINER_NAMES
from tests.cache.shared_examples import make_shared

Array = npt.NDArray[Any]
TOKEN_ARRAYS = ("input_ids", "loss_mask")


class Read(NamedTuple):
    """An example read by `DocumentReader`; states are float32."""

    row_id: str
    input_ids: Array
    loss_mask: Array
    states: dict[int, Array]
    text: str


def sealed(text: bytes, mark: bytes) -> dict[str, Any]:
    body = text[: text.rindex(mark)]
    content: dict[str, Any] = json.loads(text)
    assert content.pop("sha256") == hashlib.sha256(body).hexdigest()
    return content


def floats(bits: Array) -> Array:
    """Return float32 values, given the bits of bfloat16, which are their upper half."""
    return (bits.astype("<u4") << 16).view("<f4")


class DocumentReader:
    """Reads sealed JSON, files, arrays, segments and examples as the document specifies them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest = sealed((root / "manifest.json").read_bytes(), b',\n "sha256": "')
        assert (self.manifest["kind"], self.manifest["version"]) == ("llm-modules cache", 4)
        head, *lines = (root / "journal.jsonl").read_bytes().split(b"\n")[:-1]
        assert sealed(head, b',"sha256":"') == self.manifest
        records = [sealed(line, b',"sha256":"') for line in lines]
        self.journal = {record["shard"]: record for record in records}
        assert len(self.journal) == self.manifest["shards"]
        for attached in self.manifest["attachments"]:
            self.check(attached["name"], attached["bytes"], attached["checksum"])
        self.home = {
            number: shard
            for shard, line in self.journal.items()
            for number in line["prefix_numbers"]
        }
        self.shards = {
            shard: self.arrays(shard) for shard, line in self.journal.items() if line["files"]
        }

    def check(self, name: str, size: int, checksum: str) -> None:
        content = (self.root / name).read_bytes()
        assert (len(content), xxhash.xxh3_128(content).hexdigest()) == (size, checksum)

    def arrays(self, shard: int) -> dict[str, Array]:
        for name, (size, checksum) in self.journal[shard]["files"].items():
            self.check(name, size, checksum)
        states = [f"hidden_states/{layer}" for layer in self.manifest["layers"]]
        names = ["offsets", "numbers", "prefixes", "lengths", *TOKEN_ARRAYS, *states]
        names += ["row_id_offsets", "row_id_bytes", "text_offsets", "text_bytes"]
        path = self.root / "shards" / f"{shard:06d}"
        if self.manifest["format"] == "hdf5":
            with h5py.File(path.with_suffix(".h5")) as file:
                arrays = {name: np.asarray(file[name]) for name in names}
        else:
            arrays = {name: self.zarr_array(path.with_suffix(".zarr") / name) for name in names}
        digest = hashlib.sha256()
        for name, values in sorted(arrays.items()):
            digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
            digest.update(values.tobytes())
        assert digest.hexdigest() == self.journal[shard]["digest"]
        return arrays

    def zarr_array(self, folder: Path) -> Array:
        metadata = json.loads((folder / "zarr.json").read_text())
        shape = tuple(metadata["shape"])
        file = folder / "/".join(["c", *("0" for _ in shape)])
        content = file.read_bytes() if file.exists() else b""
        codec = metadata["codecs"][0]["name"]
        if codec == "llm_modules.klt":
            return np.frombuffer(content, np.uint8)
        if codec == "llm_modules.int8":
            return np.frombuffer(content, np.uint8).reshape(shape[0], shape[1] + 4)
        assert codec == "sharding_indexed"
        kind = np.dtype(metadata["data_type"]).newbyteorder("<")
        return np.frombuffer(content, kind, int(np.prod(shape)) if content else 0).reshape(shape)

    def states_of(self, shard: int, layer: int, segment: int) -> tuple[Array, bytes]:
        """Return the states `[T, d_teacher]` of a segment, and its stored bytes."""
        codec = dict(zip(self.manifest["layers"], self.manifest["codecs"], strict=True))[layer]
        stored, (start, stop) = (
            self.shards[shard][f"hidden_states/{layer}"],
            self.shards[shard]["offsets"][segment : segment + 2],
        )
        if codec == "bf16":
            return floats(stored[start:stop]), stored[start:stop].tobytes()
        fit = load_file(self.root / f"attachments/codecs/layer{layer}.safetensors")
        if codec == "int8":
            rows = np.ascontiguousarray(stored[start:stop])
            scales = np.ascontiguousarray(rows[:, -4:]).view("<f4")
            return rows[:, :-4].view(np.int8) * scales * fit["channel_scales"], rows.tobytes()
        return self.klt_states(stored.tobytes(), segment, fit)

    def klt_states(self, stored: bytes, segment: int, fit: dict[str, Array]) -> tuple[Array, bytes]:
        version, segments, channels, group, _, header_size, *_ = np.frombuffer(
            stored, "<u4", 8
        ).tolist()
        assert version == 1
        groups, place = -(-channels // group), 32
        index = np.frombuffer(stored, "<u4", segments * (2 + groups), place).reshape(
            segments, 2 + groups
        )
        place += index.nbytes
        sizes = np.frombuffer(stored, "<u4", groups, place).tolist()
        place += 4 * groups
        opened, _ = FileDecompressor.new(stored[place : place + header_size])
        place += header_size
        tables = [
            stored[place + sum(sizes[:i]) : place + sum(sizes[: i + 1])] for i in range(groups)
        ]
        place += sum(sizes)
        bodies = index[:, 2:].sum(1, dtype=int) + index[:, 1].astype(int) * (4 + 2 * channels)
        body = stored[place + bodies[:segment].sum() : place + bodies[: segment + 1].sum()]
        tokens, exact, *pages = index[segment].tolist()
        values, at = [], 0
        for number, (table, size) in enumerate(zip(tables, pages, strict=True)):
            width = min(group, channels - number * group)
            page = np.empty(tokens * width, np.int16)
            if tokens:
                opened.chunk_decompressor(table, "i16")[0].read_page_into(
                    body[at : at + size], tokens * width, page
                )
            values.append(page.reshape(width, tokens).T)
            at += size
        states = (np.concatenate(values, 1) * fit["step"]) @ fit["basis"].astype(
            np.float32
        ).T + fit["mean"]
        rows = np.frombuffer(body, "<u4", exact, at)
        states[rows] = floats(
            np.frombuffer(body, "<u2", exact * channels, at + 4 * exact).reshape(exact, channels)
        )
        return states.astype(np.float32), body

    def segment(self, shard: int, segment: int, text: bytes = b"") -> dict[str, Array]:
        arrays = self.shards[shard]
        start, stop = arrays["offsets"][segment : segment + 2]
        values = {name: arrays[name][start:stop] for name in TOKEN_ARRAYS}
        stored = {name: values[name].tobytes() for name in TOKEN_ARRAYS}
        for layer in self.manifest["layers"]:
            name = f"hidden_states/{layer}"
            values[name], stored[name] = self.states_of(shard, layer, segment)
        checksum = xxhash.xxh3_64(
            b"".join(stored[name] for name in sorted(stored)) + text
        ).hexdigest()
        assert checksum == self.journal[shard]["checksums"][16 * segment : 16 * segment + 16]
        return values

    def prefix(self, number: int) -> list[dict[str, Array]]:
        if number < 0:
            return []
        shard = self.home[number]
        segment = self.journal[shard]["prefix_numbers"].index(number)
        assert self.shards[shard]["numbers"][segment] == number
        return [
            *self.prefix(int(self.shards[shard]["prefixes"][segment])),
            self.segment(shard, segment),
        ]

    def examples(self) -> Iterator[Read]:
        for shard, arrays in sorted(self.shards.items()):
            first = len(arrays["numbers"]) - len(arrays["lengths"])
            for position, length in enumerate(arrays["lengths"].tolist()):
                row_id, text = (
                    arrays[f"{name}_bytes"][
                        slice(*arrays[f"{name}_offsets"][position : position + 2])
                    ].tobytes()
                    for name in ("row_id", "text")
                )
                own = first + position
                segments = [
                    *self.prefix(int(arrays["prefixes"][own])),
                    self.segment(shard, own, text),
                ]
                whole = {
                    name: np.concatenate([segment[name] for segment in segments])
                    for name in segments[0]
                }
                assert len(whole["input_ids"]) == length
                states = {
                    layer: whole[f"hidden_states/{layer}"] for layer in self.manifest["layers"]
                }
                yield Read(
                    row_id.decode(), *(whole[name] for name in TOKEN_ARRAYS), states, text.decode()
                )


@pytest.mark.parametrize("codec", CODEC_NAMES)
@pytest.mark.parametrize("container", CONTAINER_NAMES)
def test_a_reader_written_from_the_document_agrees_with_this_package(
    container: str, codec: str, tmp_path: Path
) -> None:
    root = make_shared(far=3).write(tmp_path / "cache", container, codec)
    cache, examples = open_cache(root), list(DocumentReader(root).examples())
    assert len(examples) == len(cache) > 5
    for index, read in enumerate(examples):
        example = cache[index]
        assert (read.row_id, read.text) == (example.row_id, cache.text(index))
        assert np.array_equal(read.input_ids, example.input_ids)
        assert np.array_equal(read.loss_mask.astype(bool), example.loss_mask)
        for layer, states in example.hidden_states.items():
            rounded = read.states[layer].astype(ml_dtypes.bfloat16).astype(np.float32)
            assert np.allclose(rounded, states.astype(np.float32), rtol=2**-7, atol=1e-6)
    digests = [line["digest"] for _, line in sorted(DocumentReader(root).journal.items())]
    assert (
        hashlib.sha256(json.dumps(digests, separators=(",", ":")).encode()).hexdigest()
        == cache.content_digest
    )
