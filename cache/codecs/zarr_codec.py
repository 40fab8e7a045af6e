"""The codecs as Zarr v3 codecs: any Zarr v3 reader with this package installed opens
`hidden_states/<layer>` as float32.

The fit lies beside the shards, in the cache's `attachments/codecs`; a shard that has been moved out
of its cache lacks it."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin
from zarr.abc.store import ByteGetter
from zarr.core.array_spec import ArraySpec as ChunkSpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.indexing import SelectorTuple
from zarr.registry import register_codec

from cache.codecs import Codec, packing_named
from cache.codecs.fit_file import FITS, fit_name, read_fit
from cache.codecs.in_memory import InMemoryArray
from cache.errors import CacheError

_NOWHERE = (
    "this store does not say where it lies, so the fit of the codec cannot be found; open the"
    " cache's folder"
)


@dataclass(frozen=True)
class StatesCodec(ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin):
    """Reads a layer's packed states, which this package's writer has stored as the array's one
    chunk.

    Attributes:
        layer: the teacher layer.
        fit: SHA-256 of the file that tells what the codec was fitted with.
    """

    codec_name: ClassVar[str]
    is_fixed_size = False

    layer: int
    fit: str

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """From an array's metadata."""
        told = data.get("configuration", {})
        if type(told.get("layer")) is not int or type(told.get("fit")) is not str:
            raise ValueError(
                f"codec {zarr_name(cls.codec_name)} does not say of which layer and fit it is"
            )
        return cls(told["layer"], told["fit"])

    def to_dict(self) -> Any:
        """As it stands in an array's metadata."""
        return {
            "name": zarr_name(self.codec_name),
            "configuration": {"layer": self.layer, "fit": self.fit},
        }

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ChunkSpec) -> int:
        """Not known before the values are."""
        raise NotImplementedError

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ChunkSpec) -> Buffer | None:
        raise NotImplementedError(
            "a cache's states are written by `llm-modules extract` and `cache convert` alone"
        )

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ChunkSpec) -> NDBuffer:
        raise CacheError(_NOWHERE)

    async def _decode_partial_single(
        self, byte_getter: ByteGetter, selection: SelectorTuple, chunk_spec: ChunkSpec
    ) -> NDBuffer | None:
        stored = await byte_getter.get(chunk_spec.prototype)
        if stored is None:
            return None
        rows, channels = chunk_spec.shape
        root = getattr(getattr(byte_getter, "store", None), "root", None)
        if not isinstance(root, Path):
            raise CacheError(_NOWHERE)
        codec = _fit_beside(root / byte_getter.path, self, channels)  # type: ignore[attr-defined]
        packed = np.frombuffer(stored.to_bytes(), np.uint8)
        spec = packing_named(self.codec_name).spec(rows, channels)
        packed = packed.reshape(spec.shape) if spec else packed
        lengths = None if spec is None else [rows]
        segments = packing_named(self.codec_name).segments(
            InMemoryArray(packed), len(packed), lengths, channels
        )
        states_TD = np.concatenate(
            [codec.decode(segments.read(segment)) for segment in range(len(segments))]
        ).astype(np.float32)
        if states_TD.shape != chunk_spec.shape:
            raise CacheError(
                f"{byte_getter}: holds states of {len(states_TD)} tokens, its metadata tells of"
                f" {rows}"
            )
        return chunk_spec.prototype.nd_buffer.from_numpy_array(states_TD[selection])


class Int8Codec(StatesCodec):
    """The `int8` codec, for Zarr."""

    codec_name = "int8"


class KltCodec(StatesCodec):
    """The `klt` codec, for Zarr."""

    codec_name = "klt"


def zarr_name(codec: str) -> str:
    """A codec's name in Zarr metadata."""
    return f"llm_modules.{codec}"


CODECS = {kind.codec_name: kind for kind in (Int8Codec, KltCodec)}
for _name, _kind in CODECS.items():
    register_codec(zarr_name(_name), _kind)


def _fit_beside(chunk: Path, wanted: StatesCodec, channels: int) -> Codec:
    for folder in chunk.absolute().parents:
        file = folder / "attachments" / FITS / fit_name(wanted.layer)
        if file.is_file():
            return _checked_fit(file, wanted, channels)
    raise CacheError(
        f"{chunk}: lies in no cache that tells what the {wanted.codec_name} codec was fitted with"
    )


@functools.lru_cache(maxsize=16)
def _checked_fit(file: Path, wanted: StatesCodec, channels: int) -> Codec:
    if hashlib.sha256(file.read_bytes()).hexdigest() != wanted.fit:
        raise CacheError(
            f"{file}: is not what this shard's {wanted.codec_name} codec was fitted with"
        )
    return read_fit(file, wanted.codec_name, channels)
