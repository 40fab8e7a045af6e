"""What a shard holds: whole examples end to end, with offsets.

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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from cache.codecs import Codec
from cache.errors import CacheError
from cache.example import Example
from cache.formats import Arrays, ArraySpec
from cache.sealed_json import canonical_json


def hidden_states_name(layer: int) -> str:
    """Name of the array that holds a layer's hidden states."""
    return f"hidden_states/{layer}"


def shard_arrays(examples: Sequence[Example], codec: Codec) -> dict[str, npt.NDArray[Any]]:
    """Lay whole examples end to end, ready to be stored.

    Raises:
        CacheError: an example has no tokens or no row id.
    """
    for example in examples:
        if not len(example) or not example.row_id:
            raise CacheError(f"example {example.row_id!r} of {len(example)} tokens: an example has tokens and a row id")
    row_ids = [example.row_id.encode() for example in examples]
    return {
        "offsets": offsets_of([len(example) for example in examples]),
        "input_ids": np.concatenate([example.input_ids for example in examples]).astype(np.int32, copy=False),
        "loss_mask": np.concatenate([example.loss_mask for example in examples]).astype(np.uint8),
        "row_id_offsets": offsets_of([len(row_id) for row_id in row_ids]),
        "row_id_bytes": np.frombuffer(b"".join(row_ids), np.uint8),
        **{
            hidden_states_name(layer): codec.encode(np.concatenate([example.hidden_states[layer] for example in examples]))
            for layer in examples[0].hidden_states
        },
    }


def array_specs(
    lengths: Sequence[int], row_id_bytes: int, layers: Iterable[int], hidden_size: int, codec: Codec
) -> dict[str, ArraySpec]:
    """Shapes and types of a shard's arrays, from its examples' lengths and the bytes of all their row ids."""
    tokens = sum(lengths)
    specs = {
        "offsets": ((len(lengths) + 1,), np.int64),
        "input_ids": ((tokens,), np.int32),
        "loss_mask": ((tokens,), np.uint8),
        "row_id_offsets": ((len(lengths) + 1,), np.int64),
        "row_id_bytes": ((row_id_bytes,), np.uint8),
    }
    states = ArraySpec((tokens, hidden_size), codec.stored_dtype)
    return {name: ArraySpec(shape, np.dtype(kind)) for name, (shape, kind) in specs.items()} | {
        hidden_states_name(layer): states for layer in layers
    }


def shard_attributes(layers: Iterable[int], codec: Codec, seal: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What a shard and its arrays say of themselves to whoever opens them with another tool; `seal` as from `shard_seal`."""
    described: dict[str, dict[str, Any]] = {
        "": {
            "kind": "llm-modules shard",
            "layout": "examples end to end; example i is tokens offsets[i]:offsets[i+1]",
            **seal,
        },
        "row_id_bytes": {"encoding": "utf-8, end to end; see row_id_offsets"},
    }
    for layer in layers:
        described[hidden_states_name(layer)] = {"layer": layer, "shape": "tokens, d_teacher", **codec.attributes}
    return described


def shard_seal(cache: str, shard: int, digest: str, non_finite: Mapping[str, int]) -> dict[str, str]:
    """What a shard knows of itself, so that a lost line of the journal can be written again from the shard alone.

    Args:
        cache: identity hash of the cache that it belongs to.
        shard: its number.
        digest: its content digest.
        non_finite: examples left out of it: tokens by row id.
    """
    left_out = {"non_finite": canonical_json(dict(non_finite)).decode()} if non_finite else {}
    return {"cache": cache, "shard": f"{shard:08d}", "content_digest": digest, **left_out}


def offsets_of(lengths: Iterable[int]) -> npt.NDArray[np.int64]:
    """Where each of some runs begins when they stand end to end, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(np.fromiter(lengths, np.int64))]).astype(np.int64)


def content_digest(arrays: Arrays) -> str:
    """SHA-256 over all arrays, whatever container holds them."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(values.data.cast("B") if values.size else b"")
    return digest.hexdigest()


def example_checksums(arrays: Arrays) -> npt.NDArray[np.uint64]:
    """`[examples]` 64-bit XXH3 of each example's tokens, loss mask and stored hidden states, arrays in the order of their names.

    A file's checksum says that it is damaged; these say which examples are.
    """
    offsets = arrays["offsets"].tolist()
    values = [arrays[name] for name in sorted(arrays) if name in ("input_ids", "loss_mask") or name.startswith("hidden_states/")]
    checksums = np.zeros(len(offsets) - 1, np.uint64)
    for index, (start, stop) in enumerate(itertools.pairwise(offsets)):
        digest = xxhash.xxh3_64()
        for array in values:
            digest.update(np.ascontiguousarray(array[start:stop]).data)
        checksums[index] = digest.intdigest()
    return checksums
