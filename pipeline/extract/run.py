"""One pass of the frozen teacher over a data set, shard by shard into the cache."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cache import content_digest_of, write_cache
from cache.codecs.fit_file import expected_bits
from cache.journal import NON_FINITE, ShardRecord
from cache.lock import require_unlocked
from cache.space import require_room
from cache.writer import require_continuable
from pipeline.device import choose_device, choose_dtype
from pipeline.errors import RunError
from pipeline.extract.calibrate import Step, calibrate, earlier_codecs, needs_lm_head
from pipeline.extract.prepare import PreparedExtract
from pipeline.extract.publisher import BackgroundPublisher
from pipeline.extract.reading import ShardReader
from pipeline.teacher.model import load_teacher

Progress = Callable[[int, int], None]
"""Called with the tokens just done and the bytes just published."""


@dataclass(frozen=True)
class ExtractResult:
    """What an extract did.

    Attributes:
        examples, tokens, bytes: of the whole cache; `stored_tokens` of them are stored, what examples share once.
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
    stored_tokens: int
    bytes: int
    seconds: float
    tokens_per_second: float | None
    shards: int
    resumed_shards: int
    content_digest: str


def extract(
    prepared: PreparedExtract,
    progress: Progress = lambda tokens, size: None,
    step: Step = lambda what, done, total: None,
) -> ExtractResult:
    """Run the teacher over the shards that are still missing and publish each as soon as it is done.

    A shard is coded and written while the teacher computes the next one; a write that fails ends the run at the next batch.

    Args:
        prepared: the extract.
        progress: told what has been read and published.
        step: told of the calibration before it, where a codec needs one.

    Raises:
        CacheError: the cache's folder holds another run's cache, or something else, or its disk has too little room.
        InputError: the teacher's weights cannot be loaded.
        OSError: a shard cannot be written.
        RunError: the teacher gives values that are not finite.
    """
    settings = prepared.settings
    codecs = earlier_codecs(settings.cache, prepared)
    prepared = prepared.with_codecs(codecs) if codecs else prepared
    manifest = prepared.manifest
    missing = require_continuable(settings.cache, manifest)
    require_unlocked(settings.cache)
    require_room(settings.cache, prepared.room_needed(missing))
    device = choose_device(settings.device)
    teacher = None
    if missing:
        dtype, with_head = choose_dtype(settings.dtype, device), codecs is None and needs_lm_head(prepared.asked)
        teacher = load_teacher(prepared.source, settings.layers, device, dtype, with_lm_head=with_head)
        if codecs is None:
            codecs = calibrate(prepared, teacher, step)
            prepared = prepared.with_codecs(codecs)
            manifest = prepared.manifest
            bits = {layer: expected_bits(codec) for layer, codec in codecs.items()}
            require_room(settings.cache, prepared.room_needed(missing, bits))
    assert codecs is not None
    with tempfile.TemporaryDirectory() as attachments:
        prepared.attach(Path(attachments), codecs)
        with write_cache(settings.cache, manifest, Path(attachments)) as writer:
            missing = writer.missing_shards()
            resumed = manifest.shards - len(missing)
            for record in writer.published.values():
                progress(record.tokens + sum(record.non_finite.values()), record.bytes)
            began, done = time.perf_counter(), 0

            def published(record: ShardRecord) -> None:
                progress(0, record.bytes)

            with BackgroundPublisher(writer, codecs, prepared.provenance_of_shards(), published) as publisher:

                def read(tokens: int) -> None:
                    publisher.check()
                    progress(tokens, 0)

                reader = None
                for shard in missing:
                    assert teacher is not None
                    reader = reader or ShardReader(
                        teacher,
                        prepared.dataset.examples,
                        prepared.sharing,
                        settings.batch_tokens,
                        skip_non_finite=settings.skip_non_finite,
                        unusable=prepared.unusable_prefixes(writer.published),
                        progress=read,
                    )
                    publisher.publish(shard, reader.read(prepared.shards[shard]))
                    done += sum(len(example) for example in prepared.examples_of(shard))
            seconds = time.perf_counter() - began
            records = [writer.published[shard] for shard in sorted(writer.published)]
            fit_bytes = writer.manifest.fit_bytes
    return _result(prepared, records, fit_bytes, resumed, seconds, done)


def _result(
    prepared: PreparedExtract, records: list[ShardRecord], fit_bytes: int, resumed: int, seconds: float, done: int
) -> ExtractResult:
    examples = sum(len(record.row_ids) for record in records)
    left_out = dict(prepared.dataset.left_out)
    if non_finite := sum(len(record.non_finite) for record in records):
        left_out[NON_FINITE] = non_finite
    if not examples:
        raise RunError(f"{prepared.settings.cache}: no example is left: no states were finite; try --dtype fp32")
    return ExtractResult(
        cache=str(prepared.settings.cache),
        examples=examples,
        left_out=left_out,
        tokens=sum(record.tokens for record in records),
        stored_tokens=sum(record.stored_tokens for record in records),
        bytes=sum(record.bytes for record in records) + fit_bytes,
        seconds=round(seconds, 3),
        tokens_per_second=round(done / seconds, 1) if done else None,
        shards=len(records),
        resumed_shards=resumed,
        content_digest=content_digest_of(records),
    )
