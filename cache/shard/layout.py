"""The arrays of a shard.

| array | type | shape | content |
| --- | --- | --- | --- |
| `offsets` | int64 | segments + 1 | segment i is tokens `offsets[i]:offsets[i+1]` |
| `numbers` | int64 | segments | number of the shared prefix; -1 for the rest of an example |
| `prefixes` | int64 | segments | number of the shared prefix preceding a segment; -1 for none |
| `lengths` | int64 | examples | tokens of each example, its prefix included |
| `input_ids` | int32 | tokens | token ids |
| `loss_mask` | uint8 | tokens | 1 where the student learns to predict the token |
| `row_id_offsets` | int64 | examples + 1 | like `offsets`, for the row ids |
| `row_id_bytes` | uint8 | | row ids as UTF-8, end to end, in the order of the examples |
| `text_offsets` | int64 | examples + 1 | like `offsets`, for the texts |
| `text_bytes` | uint8 | | the source of each example's tokens, as UTF-8, end to end |
| `hidden_states/<layer>` | the codec's | the codec's | hidden states, `[tokens, d_teacher]` |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

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
    """Return the name of a layer's array."""
    return f"hidden_states/{layer}"


def shard_arrays(content: ShardContent, codecs: Mapping[int, str]) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays to store.

    Args:
        content: the shard's content; coded states are packed.
        codecs: name of each layer's codec.
    """
    row_ids, texts = (
        [text.encode() for text in texts] for texts in (content.row_ids, content.texts)
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
    *,
    segments: int,
    tokens: int,
    examples: int,
    row_id_bytes: int,
    text_bytes: int,
    state_bytes: Mapping[int, int],
    hidden_size: int,
    codecs: Mapping[int, str],
) -> dict[str, ArraySpec]:
    """Return shapes and types of a shard's arrays.

    Args:
        segments, tokens, examples: their numbers; a shared prefix counts once.
        row_id_bytes, text_bytes: total sizes of row ids and texts.
        state_bytes: of each layer; needed if the number of tokens does not determine it.
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
    """Return the attributes of a shard and its arrays, for users of other tools and for repair.

    Args:
        codecs: name of each layer's codec.
        seal: from `shard_seal`.
    """
    described: dict[str, dict[str, Any]] = {
        "": {
            "kind": "llm-modules shard",
            "layout": (
                "segments end to end: shared prefixes, then the rest of each example; segment i is"
                " tokens offsets[i]:offsets[i+1] and follows the prefix numbered prefixes[i]"
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
    """Return the decoded form of packed states, for containers with codecs.

    Args:
        codecs: name of each layer's codec.
        fits: SHA-256 of the codec fit of each layer that has one.
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
    """Return the attributes from which a lost line of the journal can be restored.

    Args:
        cache: identity hash of its cache.
        shard: its number.
        digest: its content digest.
        non_finite: tokens by row id of examples left out.
    """
    left_out = {"non_finite": canonical_json(dict(non_finite)).decode()} if non_finite else {}
    return {"cache": cache, "shard": f"{shard:08d}", "content_digest": digest, **left_out}


def offsets_of(lengths: Iterable[int]) -> npt.NDArray[np.int64]:
    """Return the start of each of consecutive runs with these lengths, and the end of the last."""
    return np.concatenate([[0], np.cumsum(np.fromiter(lengths, np.int64))]).astype(np.int64)


def packed_segments(
    arrays: Arrays, codecs: Mapping[int, str], hidden_size: int
) -> dict[str, Segments]:
    """Return the segments of each layer's packed states, by array name.

    Raises:
        DamagedCacheError: an array has other segments than `offsets`.
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
