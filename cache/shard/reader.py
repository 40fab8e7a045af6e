"""Reading a published shard, segment by segment."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.array_spec import ArraySpec
from cache.codecs import CodedStates, Segments, packing_named
from cache.containers import container_named
from cache.errors import DamagedCacheError
from cache.files import check_file, inside
from cache.manifest import Manifest
from cache.names import SHARDS
from cache.shard.array_reader import ArrayReader
from cache.shard.content import NO_PREFIX
from cache.shard.layout import array_specs, hidden_states_name, offsets_of
from cache.shard.record import ShardRecord


def shard_name(manifest: Manifest, shard: int) -> str:
    """Return the name of a shard's file or folder, relative to the cache."""
    return f"{SHARDS}/{shard:06d}{container_named(manifest.format).suffix}"


def record_specs(record: ShardRecord, manifest: Manifest) -> dict[str, ArraySpec]:
    """Return shapes and types of a published shard's arrays.

    Raises:
        DamagedCacheError: its record lacks a layer.
    """
    if record.layer_bytes.keys() != set(manifest.layers):
        raise DamagedCacheError(
            f"the journal lists layers {sorted(record.layer_bytes)} for shard {record.shard}"
        )
    return array_specs(
        segments=len(record.stored),
        tokens=record.stored_tokens,
        examples=len(record.row_ids),
        row_id_bytes=sum(len(row_id.encode()) for row_id in record.row_ids),
        text_bytes=record.text_bytes,
        state_bytes=record.layer_bytes,
        hidden_size=manifest.hidden_size,
        codecs=manifest.codec_of,
    )


class StoredShard:
    """A published shard, open for reading; hidden states are not kept in memory."""

    def __init__(self, root: Path, manifest: Manifest, record: ShardRecord, *, check: bool) -> None:
        """Locate the arrays, and compare their metadata with the journal.

        Args:
            root: the cache's folder.
            manifest: of the cache.
            record: of the shard.
            check: compare the files' checksums, not only their sizes.

        Raises:
            DamagedCacheError: a file is missing, cut or changed, or its arrays are not those of the
                journal.
        """
        self._starts = array("q", offsets_of(record.stored).tolist())
        for name, (size, checksum) in record.files.items():
            check_file(root, name, size, checksum if check else None)
        self._arrays = _located(root, manifest, record)
        self._require_same_segments(inside(root, shard_name(manifest, record.shard)), record)
        self._layers: dict[int, Segments] = {}
        for layer, codec in manifest.codec_of.items():
            packed, lengths = self._arrays[hidden_states_name(layer)], record.stored.tolist()
            self._layers[layer] = packing_named(codec).segments(
                packed, packed.length, lengths, manifest.hidden_size
            )
        self._texts = array("q", self.array("text_offsets").tolist())
        self._tokens: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None

    def _require_same_segments(self, path: Path, record: ShardRecord) -> None:
        row_ids = [row_id.encode() for row_id in record.row_ids]
        same = (
            self.array("offsets").tolist() == self._starts.tolist()
            and self.array("prefixes").tolist() == record.prefixes.tolist()
            and self.array("numbers").tolist()
            == [*record.prefix_numbers.tolist(), *[NO_PREFIX] * len(row_ids)]
            and self.array("lengths").tolist() == record.lengths.tolist()
            and self.array("row_id_offsets").tolist() == offsets_of(map(len, row_ids)).tolist()
            and self.array("row_id_bytes").tobytes() == b"".join(row_ids)
            and _are_offsets(self.array("text_offsets"), record.text_bytes)
        )
        if not same:
            raise DamagedCacheError(f"{path}: its examples are not those of the journal")

    @property
    def names(self) -> list[str]:
        """Names of its arrays."""
        return list(self._arrays)

    @property
    def packed(self) -> dict[str, Segments]:
        """Segments of each layer's packed states, by array name."""
        return {hidden_states_name(layer): packed for layer, packed in self._layers.items()}

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return a whole stored array.

        Raises:
            DamagedCacheError: the file is missing, cut or unreadable.
        """
        return self._arrays[name].read_all()

    def packed_array(self, layer: int) -> npt.NDArray[Any]:
        """Return a layer's stored array of hidden states.

        Raises:
            DamagedCacheError: they cannot be read.
        """
        return self.array(hidden_states_name(layer))

    @property
    def token_bytes(self) -> int:
        """Memory that `load_tokens` takes."""
        return int(5 * self._starts[-1])

    @property
    def tokens_loaded(self) -> bool:
        """Whether token ids and loss masks are in memory."""
        return self._tokens is not None

    def load_tokens(self) -> int:
        """Keep token ids and loss masks in memory, saving two reads per example.

        Returns:
            Their size in bytes.
        """
        self._tokens = self.array("input_ids"), self.array("loss_mask").view(np.bool_)
        return sum(values.nbytes for values in self._tokens)

    def tokens(self, segment: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """Return token ids and loss mask `[T]` of a segment."""
        start, stop = self._starts[segment], self._starts[segment + 1]
        if self._tokens:
            return self._tokens[0][start:stop].copy(), self._tokens[1][start:stop].copy()
        mask = self._arrays["loss_mask"].read(start, stop).view(np.bool_)
        return self._arrays["input_ids"].read(start, stop), mask

    def text(self, position: int) -> str:
        """Return the text of the example at a position.

        Raises:
            DamagedCacheError: it cannot be read.
        """
        start, stop = self._texts[position], self._texts[position + 1]
        try:
            return self._arrays["text_bytes"].read(start, stop).tobytes().decode()
        except UnicodeDecodeError as error:
            raise DamagedCacheError(f"the text is not UTF-8 ({error})") from error

    def coded(self, segment: int, layer: int) -> CodedStates:
        """Return a segment's coded hidden states.

        Raises:
            KeyError: no such layer.
            DamagedCacheError: they cannot be read.
        """
        return self._layers[layer].read(segment)

    def close(self) -> None:
        """Close its files and release decoders; the next read opens them again."""
        for reader in self._arrays.values():
            reader.close()
        for packed in self._layers.values():
            packed.release()


def _located(root: Path, manifest: Manifest, record: ShardRecord) -> dict[str, ArrayReader]:
    """Return a reader per array; refuse shapes and types that contradict the journal."""
    specs, container = record_specs(record, manifest), container_named(manifest.format)
    name = shard_name(manifest, record.shard)
    if unlisted := container.files(name, specs) - record.files.keys():
        raise DamagedCacheError(
            f"{root / min(unlisted)}: not one of the files that the journal lists for this shard"
        )
    path, readers = inside(root, name), {}
    for array_name, stored in container.locate(path, specs).items():
        if stored.spec != specs[array_name]:
            raise DamagedCacheError(
                f"{path}: array {array_name!r} is {stored.spec}, the journal implies"
                f" {specs[array_name]}"
            )
        readers[array_name] = ArrayReader(stored)
    return readers


def _are_offsets(offsets: npt.NDArray[np.int64], size: int) -> bool:
    return bool(offsets[0] == 0 and offsets[-1] == size and (np.diff(offsets) >= 0).all())
