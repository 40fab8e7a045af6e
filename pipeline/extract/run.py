"""The frozen teacher's pass over a data set: each shard is published as soon as it is computed."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from cache import content_digest_of, write_cache
from cache.codecs.fit_file import expected_bits
from cache.journal import NON_FINITE
from cache.shard.record import ShardRecord
from cache.upkeep.space import require_room
from cache.writer import require_resumable
from pipeline.errors import RunError
from pipeline.extract.attachments import kept_lm_head, write_attachments
from pipeline.extract.calibration import codecs_without_fitting
from pipeline.extract.engines.interface import Engine
from pipeline.extract.engines.local import LocalEngine
from pipeline.extract.plan import ExtractPlan
from pipeline.extract.publisher import report_shard
from pipeline.extract.space import required_bytes
from pipeline.progress import NO_PROGRESS, Progress


@dataclass(frozen=True)
class ExtractResult:
    """The outcome of an extract.

    Attributes:
        examples, tokens, bytes: of the whole cache, codec fits included.
        left_out: rows that did not become examples, by reason.
        first_left_out: the first unusable row and its problem, by reason.
        unread: rows per column or message field whose content was not read.
        stored_tokens: of the whole cache; a shared prefix counts once.
        seconds: from the first batch to the last published shard, without loading the teacher.
        tokens_per_second: of this run; None if all shards were already published.
        resumed_shards: shards that an earlier run had published.
        content_digest: of the whole cache.
        unshared: why the teacher cannot share prefixes, where sharing was requested.
    """

    cache: str
    examples: int
    left_out: dict[str, int]
    first_left_out: dict[str, str]
    unread: dict[str, int]
    tokens: int
    stored_tokens: int
    bytes: int
    seconds: float
    tokens_per_second: float | None
    shards: int
    resumed_shards: int
    content_digest: str
    unshared: str | None


def extract(
    plan: ExtractPlan,
    progress: Progress = NO_PROGRESS,
    engine: Engine | None = None,
) -> ExtractResult:
    """Compute and publish the missing shards of a cache.

    A shard is encoded and written while the teacher computes the next one; a failed write ends the
    run at the next batch.

    Args:
        plan: the extract.
        progress: counts tokens, with figures as for `Engine.make_shards`.
        engine: runs the teacher; None: in this process.

    Raises:
        CacheError: the location has another cache or something else, or its disk is too small.
        InputError: the teacher's weights cannot be loaded, or no step meets a codec requirement.
        OSError: a shard cannot be written.
        RunError: the teacher's states are not finite, or no worker stays alive.
    """
    engine = engine or LocalEngine(plan)
    location = plan.location
    codecs = codecs_without_fitting(location, plan)
    manifest = plan.fitted(codecs).manifest if codecs else plan.manifest
    missing = require_resumable(location, manifest)
    location.require_unlocked()
    require_room(location, required_bytes(plan, manifest, missing))
    # Before the teacher is loaded for the pass, so that only one is in memory.
    lm_head = kept_lm_head(plan) if missing else None
    if codecs is None:
        codecs = engine.calibrate(progress)
        bits = {layer: expected_bits(codec) for layer, codec in codecs.items()}
        require_room(location, required_bytes(plan, plan.fitted(codecs).manifest, missing, bits))
    fitted = plan.fitted(codecs)
    if missing:
        engine.load()
    with tempfile.TemporaryDirectory() as attachments:
        write_attachments(fitted, Path(attachments), lm_head)
        with write_cache(location, fitted.manifest, Path(attachments)) as writer:
            missing = writer.missing_shards()
            progress.stage("extract", plan.manifest.tokens)
            for record in writer.published.values():
                report_shard(progress, record)
            began = time.perf_counter()
            if missing:
                engine.make_shards(fitted, writer, progress)
            seconds = time.perf_counter() - began
            records = [writer.published[shard] for shard in sorted(writer.published)]
            fit_bytes = writer.manifest.fit_bytes
    tokens = sum(len(example) for shard in missing for example in plan.examples_of(shard))
    return _result(plan, records, fit_bytes, len(records) - len(missing), seconds, tokens)


def _result(
    plan: ExtractPlan,
    records: list[ShardRecord],
    fit_bytes: int,
    resumed: int,
    seconds: float,
    computed_tokens: int,
) -> ExtractResult:
    """Return the result; raise if no example has finite states."""
    examples = sum(len(record.row_ids) for record in records)
    left_out = dict(plan.dataset.left_out)
    if non_finite := sum(len(record.non_finite) for record in records):
        left_out[NON_FINITE] = non_finite
    if not examples:
        raise RunError(
            f"{plan.location.address}: no example is left: no states were finite; try --dtype fp32"
        )
    return ExtractResult(
        cache=plan.location.address,
        examples=examples,
        left_out=left_out,
        first_left_out=plan.dataset.first,
        unread=plan.unread,
        tokens=sum(record.tokens for record in records),
        stored_tokens=sum(record.stored_tokens for record in records),
        bytes=sum(record.bytes for record in records) + fit_bytes,
        seconds=round(seconds, 3),
        tokens_per_second=round(computed_tokens / seconds, 1) if computed_tokens else None,
        shards=len(records),
        resumed_shards=resumed,
        content_digest=content_digest_of(records),
        unshared=plan.unshared,
    )
