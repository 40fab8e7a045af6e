"""Reading a whole shard, to store its content elsewhere."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from cache.errors import CacheError, DamagedCacheError
from cache.manifest import Manifest
from cache.shard.content import NO_PREFIX, ShardContent
from cache.shard.pool import ShardPool
from cache.shard.record import ShardRecord
from cache.shard.segment import join_segments


def read_content(
    pool: ShardPool,
    shard: int,
    manifest: Manifest,
    record: ShardRecord,
    unpacked: Collection[int] = (),
) -> ShardContent:
    """Return the content of a shard.

    Args:
        pool: reads the shard.
        shard: index of the shard.
        manifest: of the cache.
        record: of the shard.
        unpacked: layers to return as coded states, not as stored arrays.

    Raises:
        DamagedCacheError: the shard is damaged.
    """
    unpacked_layers = [layer for layer in manifest.layers if layer in unpacked]
    packed_layers = [layer for layer in manifest.layers if layer not in unpacked]
    try:
        segments = [
            pool.read_segment(shard, segment, unpacked_layers)
            for segment in range(len(record.stored))
        ]
        packed, texts = {}, []
        if segments:
            with pool.reading(shard) as opened:
                texts = [opened.text(position) for position in range(len(record.row_ids))]
                packed = {layer: opened.packed_array(layer) for layer in packed_layers}
    except CacheError as error:
        raise DamagedCacheError(f"shard {shard}: {error}") from error
    whole = join_segments(segments) if segments else None
    numbers = [*record.prefix_numbers.tolist(), *[NO_PREFIX] * len(record.row_ids)]
    return ShardContent(
        record.row_ids,
        texts,
        record.lengths,
        record.stored,
        np.array(numbers, np.int64),
        record.prefixes,
        whole.input_ids if whole else np.zeros(0, np.int32),
        whole.loss_mask if whole else np.zeros(0, np.bool_),
        {**packed, **(whole.hidden_states if whole else {})},
    )
