"""Repair a cache: extract again only what is lost."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from cache import open_cache
from cache.storage import storage_location
from cache.upkeep.repair import CacheRepairer, repair_cache
from cache.upkeep.summary import published_bytes
from pipeline.extract.attachments import kept_lm_head, write_attachments
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.upkeep.lost_shards import extract_lost_shards
from pipeline.upkeep.original_extract import OriginalExtract
from pipeline.upkeep.recorded_settings import recorded_settings
from pipeline.upkeep.settings import RepairSettings


@dataclass(frozen=True)
class RepairResult:
    """What a repair did.

    Attributes:
        found: all damage, one phrase per file.
        restored: intact shards whose lost journal lines were restored from the shards themselves.
        shards: those extracted again.
        unknown_shards: those of them with nothing left to compare with.
        tokens: of the shards extracted again.
        same_content: whether each of the others has the content of the lost one.
        content_digest: of the repaired cache.
    """

    cache: str
    found: list[str]
    restored: list[int]
    shards: list[int]
    unknown_shards: list[int]
    tokens: int
    same_content: bool
    content_digest: str


def repair(settings: RepairSettings, progress: Progress = NO_PROGRESS) -> RepairResult:
    """Verify a cache, and extract its damaged and missing shards again.

    Args:
        settings: the cache, and the locations of teacher and data set.
        progress: counts the verified bytes, then tokens.

    Raises:
        CacheError: there is no cache, another process is writing to it, or teacher or data set are
            not the original ones.
        InputError: the teacher or the data set is missing.
        RunError: numbers differ from the lost ones, or are not finite.
    """
    location = storage_location(settings.cache)
    progress.stage("verify", published_bytes(location))
    with repair_cache(location, progress.advance) as repairer:
        same_content: dict[int, bool | None] = {}
        if repairer.shards or repairer.damaged_attachments:
            same_content = _replace_lost(repairer, settings, progress)
        repairer.require_consistent()
        with open_cache(settings.cache) as cache:
            content_digest = cache.content_digest
        verification = repairer.verification
        return RepairResult(
            cache=repairer.location.address,
            found=[
                *(f"{damage.file}: {damage.what}" for damage in verification.damage),
                *(
                    f"shard {shard}: missing from the journal"
                    for shard in verification.missing_shards
                ),
            ],
            restored=repairer.restored,
            shards=repairer.shards,
            unknown_shards=[shard for shard, same in same_content.items() if same is None],
            tokens=sum(repairer.records[shard].tokens for shard in repairer.shards),
            same_content=all(same is not False for same in same_content.values()),
            content_digest=content_digest,
        )


def _replace_lost(
    repairer: CacheRepairer, settings: RepairSettings, progress: Progress
) -> dict[int, bool | None]:
    """Replace lost shards and attachments; return which shards have the same content."""
    original = OriginalExtract(
        repairer,
        recorded_settings(repairer.manifest, settings),
    )
    with_attachments = bool(repairer.damaged_attachments)
    lm_head = kept_lm_head(original.plan) if with_attachments else None
    fitted = original.fitted_plan()
    same_content = extract_lost_shards(
        repairer,
        original,
        fitted,
        progress,
        allow_other_numbers=settings.allow_other_numbers,
    )
    if with_attachments:
        with tempfile.TemporaryDirectory() as attachments:
            write_attachments(fitted, Path(attachments), lm_head)
            repairer.replace_attachments(Path(attachments))
    return same_content
