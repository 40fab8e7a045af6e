"""Digests of a shard's content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import xxhash

from cache.codecs import Segments
from cache.containers import Arrays


def content_digest(arrays: Arrays) -> str:
    """Return the SHA-256 of all arrays, the same for every container."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(values.data.cast("B") if values.size else b"")
    return digest.hexdigest()


def segment_checksums(arrays: Arrays, segments: Mapping[str, Segments]) -> npt.NDArray[np.uint64]:
    """Return `[segments]` 64-bit XXH3 of each segment's stored bytes.

    They cover tokens, loss mask and hidden states, in the order of array names, then the text. A
    file's checksum detects damage; these locate it in segments, and so in examples.
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
