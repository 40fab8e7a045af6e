"""The codecs as Zarr v3 codecs: zarr-python opens `hidden_states/<layer>` as float32.

zarr-python finds them by the entry points of this package. The fit is read from the
`attachments/codecs` of the shard's cache; a shard outside its cache cannot be decoded.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from zarr.abc.buffer import Buffer, NDBuffer
from zarr.abc.codec import ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin
from zarr.abc.store import ByteGetter
from zarr.registry import register_codec
from zarr.storage import LocalStore, StorePath

from cache.codecs import Codec, packing_named
from cache.codecs.fit_file import fit_name, read_fit
from cache.codecs.in_memory import InMemoryArray
from cache.errors import CacheError
from cache.names import ATTACHMENTS, FITS, zarr_codec_name

if TYPE_CHECKING:  # zarr does not export two types of its codecs' signatures
    from zarr.core.array_spec import ArraySpec as ChunkSpec
    from zarr.core.indexing import SelectorTuple

_NO_FOLDER = "only a cache in a local folder can be decoded: the codec's fit is read from it"


@dataclass(frozen=True)
class StatesCodec(ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin):
    """Reads a layer's packed states, the only chunk of their array.

    Attributes:
        layer: the teacher layer.
        fit: SHA-256 of the codec's fit.
    """

    codec_name: ClassVar[str]
    is_fixed_size = False

    layer: int
    fit: str

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Return the codec that an array's metadata describe."""
        configuration = data.get("configuration", {})
        layer, fit = configuration.get("layer"), configuration.get("fit")
        if type(layer) is not int or type(fit) is not str:
            raise ValueError(f"codec {zarr_codec_name(cls.codec_name)} lacks its layer or fit")
        return cls(layer, fit)

    def to_dict(self) -> Any:
        """Return the codec's description in an array's metadata."""
        return {
            "name": zarr_codec_name(self.codec_name),
            "configuration": {"layer": self.layer, "fit": self.fit},
        }

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ChunkSpec) -> int:
        """Raise: the size depends on the values."""
        raise NotImplementedError

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ChunkSpec) -> Buffer | None:
        raise NotImplementedError(
            "hidden states of a cache are read-only; `llm-modules extract` and `cache convert`"
            " write them"
        )

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ChunkSpec) -> NDBuffer:
        raise CacheError(_NO_FOLDER)

    async def _decode_partial_single(
        self, byte_getter: ByteGetter, selection: SelectorTuple, chunk_spec: ChunkSpec
    ) -> NDBuffer | None:
        if not isinstance(byte_getter, StorePath) or not isinstance(byte_getter.store, LocalStore):
            raise CacheError(_NO_FOLDER)
        stored = await byte_getter.get(chunk_spec.prototype)
        if stored is None:
            return None
        rows, channels = chunk_spec.shape
        codec = _fit_of(byte_getter.store.root / byte_getter.path, self, channels)
        packed = np.frombuffer(stored.to_bytes(), np.uint8)
        packing = packing_named(self.codec_name)
        spec = packing.spec(rows, channels)
        packed = packed.reshape(spec.shape) if spec else packed
        lengths = None if spec is None else [rows]
        segments = packing.segments(InMemoryArray(packed), len(packed), lengths, channels)
        states_TD = np.concatenate(
            [codec.decode(segments.read(segment)) for segment in range(len(segments))]
        ).astype(np.float32)
        if states_TD.shape != chunk_spec.shape:
            raise CacheError(
                f"{byte_getter}: has {len(states_TD)} tokens, not the {rows} of its metadata"
            )
        return chunk_spec.prototype.nd_buffer.from_numpy_array(states_TD[selection])


class Int8Codec(StatesCodec):
    """The `int8` codec, for Zarr."""

    codec_name = "int8"


class KltCodec(StatesCodec):
    """The `klt` codec, for Zarr."""

    codec_name = "klt"


CODECS = {codec.codec_name: codec for codec in (Int8Codec, KltCodec)}
for _name, _codec in CODECS.items():
    register_codec(zarr_codec_name(_name), _codec)


def _fit_of(chunk: Path, codec: StatesCodec, channels: int) -> Codec:
    for folder in chunk.absolute().parents:
        file = folder / ATTACHMENTS / FITS / fit_name(codec.layer)
        if file.is_file():
            return _checked_fit(file, codec, channels)
    raise CacheError(f"{chunk}: not in a cache that has a fit of the {codec.codec_name} codec")


@functools.lru_cache(maxsize=16)
def _checked_fit(file: Path, codec: StatesCodec, channels: int) -> Codec:
    if hashlib.sha256(file.read_bytes()).hexdigest() != codec.fit:
        raise CacheError(f"{file}: not the fit of this shard's {codec.codec_name} codec")
    return read_fit(file, codec.codec_name, channels)
