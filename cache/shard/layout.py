"""How a shard's arrays lie in its container.

| array | type | shape | holds |
| --- | --- | --- | --- |
| `offsets` | int64 | segments + 1 | segment i is tokens `offsets[i]:offsets[i+1]` |
| `numbers` | int64 | segments | number of the shared prefix that a segment is; -1 for what an example has of its own |
| `prefixes` | int64 | segments | number of the shared prefix that comes before a segment; -1 where nothing does |
| `lengths` | int64 | examples | tokens of each example as it is read, what comes before its segment included |
| `input_ids` | int32 | tokens | token ids |
| `loss_mask` | uint8 | tokens | 1 where the student is to predict this token |
| `row_id_offsets` | int64 | examples + 1 | likewise for the row ids, in the order of the segments numbered -1 |
| `row_id_bytes` | uint8 | | row ids as UTF-8, end to end |
| `text_offsets` | int64 | examples + 1 | likewise for the texts |
| `text_bytes` | uint8 | | what each example's tokens were made from, as UTF-8, end to end |
| `hidden_states/<layer>` | the codec's | the codec's | teacher activations of a layer, `[tokens, d_teacher]` |
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from cache.array_spec import ArraySpec
from cache.codecs import CodedStates, Segments, packing_named
from cache.codecs.in_memory import InMemoryArray
from cache.containers import Arrays, DecodedArray
from cache.sealed_json import canonical_json
from cache.shard.content import ShardContent

FIXED_ARRAYS = (
    "offsets",
    "numbers",
    "prefixes",
    "lengths",
    "input_ids",
    "loss_mask",
    "row_id_offsets",
    "row_id_bytes",
    "text_offsets",
    "text_bytes",
)


def hidden_states_name(layer: int) -> str:
    """Name of the array that holds a layer's hidden states."""
    return f"hidden_states/{layer}"


def shard_arrays(content: ShardContent, codecs: Mapping[int, str]) -> dict[str, npt.NDArray[Any]]:
    """A shard's arrays, ready to be stored. `codecs` names each layer's; its coded states are
    packed its way, unless they are."""
    row_ids, texts = (
        [each.encode() for each in listed] for listed in (content.row_ids, content.texts)
    )
    lengths = content.stored.tolist()
    return {
        "offsets": offsets_of(lengths),
        "numbers": content.numbers,
        "prefixes": content.prefixes,
        "lengths": content.lengths,
        "input_ids": content.input_ids,
        "loss_mask": content.loss_mask.astype(np.uint8),
        "row_id_offsets": offsets_of([len(row_id) for row_id in row_ids]),
        "row_id_bytes": np.frombuffer(b"".join(row_ids), np.uint8),
        "text_offsets": offsets_of([len(text) for text in texts]),
        "text_bytes": np.frombuffer(b"".join(texts), np.uint8),
        **{
            hidden_states_name(layer): (
                packing_named(name).pack(states, lengths)
                if isinstance(states, CodedStates)
                else states
            )
            for layer, name in codecs.items()
            for states in [content.hidden_states[layer]]
        },
    }


def array_specs(
    *, segments: int, tokens: int, examples: int, row_id_bytes: int, text_bytes: int, state_bytes: Mapping[int, int],
    hidden_size: int, codecs: Mapping[int, str],
) -> dict[str, ArraySpec]:  # fmt: skip
    """Shapes and types of a shard's arrays.

    Args:
        segments, tokens, examples: how many it holds; tokens as they are stored.
        row_id_bytes, text_bytes: of all its row ids, and of all its texts together.
        state_bytes: bytes of each layer's stored states, asked where they do not follow from the
            number of tokens.
        hidden_size: width of the hidden states.
        codecs: name of each layer's codec.
    """
    specs = {
        "offsets": ((segments + 1,), np.int64),
        "numbers": ((segments,), np.int64),
        "prefixes": ((segments,), np.int64),
        "lengths": ((examples,), np.int64),
        "input_ids": ((tokens,), np.int32),
        "loss_mask": ((tokens,), np.uint8),
        "row_id_offsets": ((examples + 1,), np.int64),
        "row_id_bytes": ((row_id_bytes,), np.uint8),
        "text_offsets": ((examples + 1,), np.int64),
        "text_bytes": ((text_bytes,), np.uint8),
    }
    states = {
        hidden_states_name(layer): (
            packing_named(name).spec(tokens, hidden_size)
            or ArraySpec((state_bytes[layer],), np.dtype(np.uint8))
        )
        for layer, name in codecs.items()
    }
    return {
        name: ArraySpec(shape, np.dtype(kind)) for name, (shape, kind) in specs.items()
    } | states


def shard_attributes(
    codecs: Mapping[int, str], seal: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """What a shard and its arrays say of themselves to whoever opens them with another tool; `seal`
    as from `shard_seal`."""
    described: dict[str, dict[str, Any]] = {
        "": {
            "kind": "llm-modules shard",
            "layout": (
                "segments end to end: shared prefixes, then what each example has of its own; segment i"
                " is tokens offsets[i]:offsets[i+1] and comes after the prefix numbered prefixes[i]"
            ),
            **seal,
        },
        "row_id_bytes": {"encoding": "utf-8, end to end; see row_id_offsets"},
        "text_bytes": {"encoding": "utf-8, end to end; see text_offsets"},
    }
    for layer, name in codecs.items():
        attributes = packing_named(name).attributes
        described[hidden_states_name(layer)] = {
            "layer": layer,
            "shape": "tokens, d_teacher",
            **attributes,
        }
    return described


def decoded_arrays(
    codecs: Mapping[int, str], fits: Mapping[int, str], tokens: int, hidden_size: int
) -> dict[str, DecodedArray]:
    """The arrays that a container with codecs of its own may show as the hidden states that they
    stand for.

    Args:
        codecs: name of each layer's codec.
        fits: for each layer whose codec was fitted, the SHA-256 of its fit.
        tokens, hidden_size: shape of the hidden states.
    """
    return {
        hidden_states_name(layer): DecodedArray(
            ArraySpec((tokens, hidden_size), np.dtype(np.float32)),
            codecs[layer],
            {"layer": layer, "fit": fit},
        )
        for layer, fit in fits.items()
    }


def shard_seal(
    cache: str, shard: int, digest: str, non_finite: Mapping[str, int]
) -> dict[str, str]:
    """What a shard knows of itself, so that a lost line of the journal can be written again from
    the shard alone.

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


def segment_checksums(arrays: Arrays, segments: Mapping[str, Segments]) -> npt.NDArray[np.uint64]:
    """`[segments]` 64-bit XXH3 of each segment's tokens, loss mask and stored hidden states, arrays in
    the order of their names, and of an example's text.

    A file's checksum says that it is damaged; these say which segments, and so which examples, are.
    """
    offsets = arrays["offsets"].tolist()
    checksums = np.zeros(len(offsets) - 1, np.uint64)
    texts = arrays["text_offsets"].tolist()
    first = len(checksums) + 1 - len(texts)
    for segment in range(len(checksums)):
        digest = xxhash.xxh3_64()
        for name in sorted({"input_ids", "loss_mask", *segments}):
            start, stop = (
                segments[name].stored_range(segment)
                if name in segments
                else offsets[segment : segment + 2]
            )
            digest.update(np.ascontiguousarray(arrays[name][start:stop]).data)
        if segment >= first:
            digest.update(
                np.ascontiguousarray(
                    arrays["text_bytes"][slice(*texts[segment - first : segment - first + 2])]
                ).data
            )
        checksums[segment] = digest.intdigest()
    return checksums


def packed_segments(
    arrays: Arrays, codecs: Mapping[int, str], hidden_size: int
) -> dict[str, Segments]:
    """The segments of each layer's packed states, by the array's name.

    Raises:
        DamagedCacheError: an array does not hold the segments that the offsets tell of.
    """
    lengths: Sequence[int] = np.diff(arrays["offsets"]).tolist()
    return {
        hidden_states_name(layer): (
            packing_named(name).segments(
                InMemoryArray(arrays[hidden_states_name(layer)]),
                len(arrays[hidden_states_name(layer)]),
                lengths,
                hidden_size,
            )
        )
        for layer, name in codecs.items()
    }
