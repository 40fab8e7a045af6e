"""One pass of the frozen teacher over a data set, shard by shard into the cache."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import torch

from cache import Example, content_digest_of, write_cache
from cache.writer import require_continuable
from pipeline.data.tokens import TokenizedExample
from pipeline.device import choose_device, choose_dtype
from pipeline.errors import RunError
from pipeline.extract.plan import plan_batches
from pipeline.extract.prepare import PreparedExtract
from pipeline.teacher.model import Teacher, load_teacher

Progress = Callable[[int, int], None]
"""Called with the tokens just done and the bytes just published."""


@dataclass(frozen=True)
class ExtractResult:
    """What an extract did.

    Attributes:
        examples, tokens, bytes: of the whole cache.
        left_out: rows that did not become examples, by reason.
        seconds: from the first batch to the last published shard of this run; loading the teacher is not counted.
        tokens_per_second: over this run's shards; None where all were already published.
        resumed_shards: shards that an earlier run had published.
        content_digest: of the whole cache.
    """

    cache: str
    examples: int
    left_out: dict[str, int]
    tokens: int
    bytes: int
    seconds: float
    tokens_per_second: float | None
    shards: int
    resumed_shards: int
    content_digest: str


def extract(prepared: PreparedExtract, progress: Progress = lambda tokens, size: None) -> ExtractResult:
    """Run the teacher over the shards that are still missing and publish each as soon as it is done.

    Raises:
        CacheError: the cache's folder holds another run's cache, or something else.
        InputError: the teacher's weights cannot be loaded.
        RunError: the teacher gives values that are not finite.
    """
    settings, manifest = prepared.settings, prepared.manifest
    lengths = [len(example) for example in prepared.dataset.examples]
    left = require_continuable(settings.cache, manifest)
    device = choose_device(settings.device)
    teacher = None
    if left:
        teacher = load_teacher(prepared.source, settings.layers, device, choose_dtype(settings.dtype, device))
    with tempfile.TemporaryDirectory() as attachments:
        prepared.tokenizer.save_pretrained(Path(attachments) / "tokenizer")
        with write_cache(settings.cache, manifest, Path(attachments)) as writer:
            missing = writer.missing_shards()
            resumed = manifest.shards - len(missing)
            for shard in writer.published:
                progress(sum(lengths[i] for i in prepared.shards[shard]), writer.published[shard].bytes)
            began = time.perf_counter()
            done = 0
            for shard in missing:
                assert teacher is not None
                examples = [prepared.dataset.examples[i] for i in prepared.shards[shard]]
                record = writer.publish(shard, read_hidden_states(teacher, examples, settings.batch_tokens, progress))
                progress(0, record.bytes)
                done += sum(len(example) for example in examples)
            seconds = time.perf_counter() - began
            records = [writer.published[shard] for shard in sorted(writer.published)]
    return ExtractResult(
        cache=str(settings.cache),
        examples=manifest.examples,
        left_out=prepared.dataset.left_out,
        tokens=manifest.tokens,
        bytes=sum(record.bytes for record in records),
        seconds=round(seconds, 3),
        tokens_per_second=round(done / seconds, 1) if done else None,
        shards=manifest.shards,
        resumed_shards=resumed,
        content_digest=content_digest_of(records),
    )


def read_hidden_states(
    teacher: Teacher, examples: Sequence[TokenizedExample], batch_tokens: int, progress: Progress
) -> list[Example]:
    """Run the teacher over some examples, in batches of like length, and give them back in their order.

    Raises:
        RunError: a layer's states of an example are not finite; names both.
    """
    read: dict[int, Example] = {}
    for batch in plan_batches([len(example) for example in examples], batch_tokens):
        rows = [examples[i] for i in batch]
        ids_BT, mask_BT = _padded(rows)
        states = teacher.hidden_states(ids_BT.to(teacher.device), mask_BT.to(teacher.device))
        states_BTD = {layer: hidden.to("cpu", torch.bfloat16) for layer, hidden in states.items()}
        for row, (index, example) in enumerate(zip(batch, rows, strict=True)):
            hidden_TD = {layer: hidden[row, : len(example)] for layer, hidden in states_BTD.items()}
            for layer, values in hidden_TD.items():
                if bad := int((~values.isfinite()).sum()):
                    raise RunError(f"row {example.row_id}, layer {layer}: the teacher gives {bad} values that are not finite")
            arrays = {layer: values.contiguous().view(torch.uint16).numpy() for layer, values in hidden_TD.items()}
            read[index] = Example(
                example.row_id,
                example.input_ids,
                example.loss_mask,
                {layer: bits.view(ml_dtypes.bfloat16) for layer, bits in arrays.items()},
            )
        progress(sum(len(example) for example in rows), 0)
    return [read[index] for index in range(len(examples))]


def _padded(rows: Sequence[TokenizedExample]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask `[B, T]`, padded on the right."""
    longest = max(len(row) for row in rows)
    ids_BT = np.zeros((len(rows), longest), np.int64)
    mask_BT = np.zeros((len(rows), longest), np.int64)
    for index, row in enumerate(rows):
        ids_BT[index, : len(row)] = row.input_ids
        mask_BT[index, : len(row)] = 1
    return torch.from_numpy(ids_BT), torch.from_numpy(mask_BT)
