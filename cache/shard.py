"""The arrays of one shard: whole examples end to end, with offsets.

| array | type | shape | holds |
| --- | --- | --- | --- |
| `offsets` | int64 | examples + 1 | example i is tokens `offsets[i]:offsets[i+1]` |
| `input_ids` | int32 | tokens | token ids |
| `loss_mask` | uint8 | tokens | 1 where the student is to predict this token |
| `row_id_offsets` | int64 | examples + 1 | likewise for the row ids |
| `row_id_bytes` | uint8 | | row ids as UTF-8, end to end |
| `hidden_states/<layer>` | the codec's | tokens, d_teacher | teacher activations of a layer |
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.codecs import Codec
from cache.errors import DamagedCacheError
from cache.example import Example
from cache.formats import Arrays, ShardArrays


def hidden_states_name(layer: int) -> str:
    """Name of the array that holds a layer's hidden states."""
    return f"hidden_states/{layer}"


def shard_arrays(examples: Sequence[Example], codec: Codec) -> dict[str, npt.NDArray[Any]]:
    """Lay whole examples end to end, ready to be stored."""
    row_ids = [example.row_id.encode() for example in examples]
    return {
        "offsets": _offsets([len(example) for example in examples]),
        "input_ids": np.concatenate([example.input_ids for example in examples]).astype(np.int32, copy=False),
        "loss_mask": np.concatenate([example.loss_mask for example in examples]).astype(np.uint8),
        "row_id_offsets": _offsets([len(row_id) for row_id in row_ids]),
        "row_id_bytes": np.frombuffer(b"".join(row_ids), np.uint8),
        **{
            hidden_states_name(layer): codec.encode(np.concatenate([example.hidden_states[layer] for example in examples]))
            for layer in examples[0].hidden_states
        },
    }


def shard_attributes(layers: Sequence[int], codec: Codec) -> dict[str, dict[str, Any]]:
    """What a shard and its arrays say of themselves to whoever opens them with another tool."""
    described: dict[str, dict[str, Any]] = {
        "": {"kind": "llm-modules shard", "layout": "examples end to end; example i is tokens offsets[i]:offsets[i+1]"},
        "row_id_bytes": {"encoding": "utf-8, end to end; see row_id_offsets"},
    }
    for layer in layers:
        described[hidden_states_name(layer)] = {"layer": layer, "shape": "tokens, d_teacher", **codec.attributes}
    return described


def content_digest(arrays: Arrays) -> str:
    """SHA-256 over all arrays, whatever container holds them."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(values.data.cast("B") if values.size else b"")
    return digest.hexdigest()


class OpenShard:
    """A published shard, open for reading. Small arrays are read at once, hidden states example by example."""

    def __init__(self, path: Path, arrays: ShardArrays, codec: Codec, layers: Sequence[int], hidden_size: int) -> None:
        self._path, self._arrays, self._codec = path, arrays, codec
        self._offsets = arrays.rows("offsets")
        self._input_ids = arrays.rows("input_ids")
        self._loss_mask = arrays.rows("loss_mask").astype(np.bool_)
        starts, text = arrays.rows("row_id_offsets"), arrays.rows("row_id_bytes").tobytes()
        self._row_ids = [text[a:b].decode() for a, b in itertools.pairwise(starts)]
        tokens = int(self._offsets[-1]) if len(self._offsets) else 0
        whole = len(self._input_ids) == len(self._loss_mask) == tokens and len(self._row_ids) == len(self._offsets) - 1
        for layer in layers:
            whole = whole and arrays.shape(hidden_states_name(layer)) == (tokens, hidden_size)
        if not whole:
            raise DamagedCacheError(f"{path}: its arrays do not fit together")

    def example(self, position: int, layers: Sequence[int]) -> Example:
        """The example at a position in this shard, with the hidden states of the layers named."""
        start, stop = int(self._offsets[position]), int(self._offsets[position + 1])
        return Example(
            self._row_ids[position],
            self._input_ids[start:stop],
            self._loss_mask[start:stop],
            {layer: self._codec.decode(self._arrays.rows(hidden_states_name(layer), start, stop)) for layer in layers},
        )

    def close(self) -> None:
        """Let go of the files."""
        self._arrays.close()


def _offsets(lengths: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
