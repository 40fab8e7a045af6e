"""Extracting again what a cache has lost, and nothing else."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cache import open_cache
from cache.codec_fits import read_codecs
from cache.codecs.fit_file import expected_bits
from cache.errors import DamagedCacheError, OtherContentError
from cache.identity import require_same_identity
from cache.storage import LocationLike, storage_location
from cache.upkeep.repair import CacheRepairer, repair_cache
from cache.upkeep.space import require_room, room_needed
from cache.upkeep.summary import published_bytes
from pipeline.device import choose_device, choose_dtype
from pipeline.errors import RunError
from pipeline.extract.attachments import kept_lm_head, write_attachments
from pipeline.extract.calibration import calibrate, needs_lm_head
from pipeline.extract.forward import TeacherPass
from pipeline.extract.plan import ExtractPlan, FittedPlan
from pipeline.extract.prepare import prepare
from pipeline.extract.space import shard_sizes
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.teacher.load import load_teacher
from pipeline.teacher.model import Teacher
from pipeline.upkeep.recorded_settings import settings_of

_MOST_THREADS = 1024


@dataclass(frozen=True, kw_only=True)
class RepairSettings:
    """One repair, as asked for on the command line; each field is the option of that name.

    Attributes:
        teacher, dataset: where they lie now; None: where they lay when the cache was made.
        skip_non_finite: as for the extract.
        allow_other_numbers: accept shards whose numbers differ from the lost ones.
    """

    cache: LocationLike
    teacher: str | None = None
    dataset: str | None = None
    device: str = "auto"
    skip_non_finite: bool = False
    allow_other_numbers: bool = False


@dataclass(frozen=True)
class RepairResult:
    """What a repair did.

    Attributes:
        found: what was wrong, one phrase each, with the file.
        restored: shards that were whole, and whose lost lines in the journal were told from them.
        shards: those extracted again.
        unknown_shards: those of them of whose content before nothing was left to compare with.
        tokens: of the shards extracted again.
        same_content: whether each of the others holds what the lost one held.
        content_digest: of the whole cache, now.
    """

    cache: str
    found: list[str]
    restored: list[int]
    shards: list[int]
    unknown_shards: list[int]
    tokens: int
    same_content: bool
    content_digest: str


def repair(
    settings: RepairSettings,
    progress: Progress = NO_PROGRESS,
) -> RepairResult:
    """Verify a cache, and extract again the shards that are damaged or missing.

    Args:
        settings: the cache, and where teacher and data set lie.
        progress: counts bytes of the check, then tokens.

    Raises:
        CacheError: there is no cache, another process writes to it, or teacher or data set are not
            those it was made from.
        InputError: the teacher or the data set is not to be had.
        RunError: the numbers differ from the lost ones, or are not finite.
    """
    location = storage_location(settings.cache)
    progress.stage("verify", published_bytes(location))
    with repair_cache(location, progress.advance) as repairer:
        same: dict[int, bool | None] = {}
        if repairer.shards or repairer.damaged_attachments:
            plan = _original_plan(repairer, settings)
            lm_head = kept_lm_head(plan) if repairer.damaged_attachments else None
            teacher = _Teacher(plan)
            fitted = _codecs_again(repairer, plan, teacher)
            same = _extract_again(repairer, fitted, teacher, settings, progress)
            if repairer.damaged_attachments:
                with tempfile.TemporaryDirectory() as attachments:
                    write_attachments(fitted, Path(attachments), lm_head)
                    repairer.replace_attachments(Path(attachments))
        repairer.require_consistent()
        with open_cache(settings.cache) as whole:
            content_digest = whole.content_digest
        missing = [
            f"shard {shard}: missing from the journal"
            for shard in repairer.verification.missing_shards
        ]
        return RepairResult(
            cache=repairer.location.address,
            found=[f"{damage.file}: {damage.what}" for damage in repairer.verification.damage]
            + missing,
            restored=repairer.restored,
            shards=repairer.shards,
            unknown_shards=[shard for shard, known in same.items() if known is None],
            tokens=sum(repairer.records[shard].tokens for shard in repairer.shards),
            same_content=all(known is not False for known in same.values()),
            content_digest=content_digest,
        )


def _original_plan(repairer: CacheRepairer, settings: RepairSettings) -> ExtractPlan:
    """The extract that made the cache, in the batches that made it."""
    manifest = repairer.manifest
    asked = settings_of(
        manifest,
        settings.cache,
        teacher=settings.teacher,
        dataset=settings.dataset,
        device=settings.device,
        skip_non_finite=settings.skip_non_finite,
    )
    plan = prepare(
        replace(asked, batch_tokens=_recorded(_how_made(repairer, None), "batch_tokens", 0) or None)
    )
    fitted = {
        **plan.manifest.identity,
        "codec": manifest.identity.get("codec"),
    }  # asked for again: compared below
    mend = "name the same teacher and data set with --teacher and --dataset"
    require_same_identity(repairer.location.address, manifest.identity, fitted, mend)
    return plan


class _Teacher:
    """The cache's teacher, loaded when it is first asked for."""

    def __init__(self, plan: ExtractPlan) -> None:
        self._plan = plan

    @functools.cached_property
    def loaded(self) -> Teacher:
        plan, device = self._plan, choose_device(self._plan.settings.device)
        dtype = choose_dtype(plan.settings.dtype, device)
        with_head = needs_lm_head(plan.requirements)
        return load_teacher(
            plan.source, plan.manifest.layers, device, dtype, with_lm_head=with_head
        )


def _codecs_again(repairer: CacheRepairer, plan: ExtractPlan, teacher: _Teacher) -> FittedPlan:
    """The codecs as they were fitted; where that is lost, fitted again.

    Raises:
        CacheError: fitted again they are others.
    """
    try:
        codecs = read_codecs(repairer.root, repairer.manifest)
    except DamagedCacheError:
        _compute_as(_how_made(repairer, None), plan)
        codecs = calibrate(plan.work(), teacher.loaded)
    fitted = plan.fitted(codecs)
    require_same_identity(
        repairer.root,
        repairer.manifest.identity,
        fitted.manifest.identity,
        "its codecs cannot be fitted again to the same numbers here; put attachments/codecs back"
        " from a copy, or convert again what was made by `cache convert`",
    )
    return fitted


def _how_made(repairer: CacheRepairer, shard: int | None) -> dict[str, Any]:
    """How a shard was made; where nothing is known of it, how any other one was, or the whole cache
    was begun."""
    known = (
        [repairer.records[shard]] if shard in repairer.records else list(repairer.records.values())
    )
    begun = repairer.manifest.provenance.get("shards")
    return next(
        (record.provenance for record in known if record.provenance),
        begun if isinstance(begun, dict) else {},
    )


def _recorded(made: dict[str, Any], name: str, otherwise: int) -> int:
    value = made.get(name)
    return value if type(value) is int and value > 0 else otherwise


def _compute_as(made: dict[str, Any], plan: ExtractPlan) -> None:
    """With as many threads as then: the last bits of sums depend on it."""
    if choose_device(plan.settings.device).type == "cpu":
        torch.set_num_threads(
            min(_recorded(made, "threads", torch.get_num_threads()), _MOST_THREADS)
        )


def _extract_again(
    repairer: CacheRepairer,
    fitted: FittedPlan,
    teacher: _Teacher,
    settings: RepairSettings,
    progress: Progress,
) -> dict[int, bool | None]:
    """Make the lost shards again; tells of each whether it holds what the lost one held."""
    if not repairer.shards:
        return {}
    plan, codecs = fitted.plan, fitted.codecs
    _require_room(repairer, fitted)
    unusable = plan.unusable_prefixes(
        {
            shard: repairer.records[shard]
            for shard in repairer.records
            if shard not in repairer.shards
        }
    )
    total = sum(len(example) for shard in repairer.shards for example in plan.examples_of(shard))
    progress.stage("extract", total)
    same = {}
    for shard in repairer.shards:
        made, lost = _how_made(repairer, shard), repairer.records.get(shard)
        batch_tokens = _recorded(made, "batch_tokens", plan.batch_tokens)
        _compute_as(made, plan)
        reader = TeacherPass(
            teacher.loaded,
            plan.dataset.examples,
            plan.sharing,
            batch_tokens,
            skip_non_finite=settings.skip_non_finite or bool(lost and lost.non_finite),
        )
        reader.leave_out(unusable)
        states = reader.read(plan.shards[shard], progress=progress)
        now = plan.work().provenance() | {"batch_tokens": states.batch_tokens}
        try:
            same[shard] = repairer.replace(
                shard,
                states.coded(codecs),
                non_finite=states.non_finite,
                provenance=now,
                other_content=settings.allow_other_numbers,
            )
        except OtherContentError as error:
            raise _other_numbers(repairer.location.address, error, made, now) from error
    return same


def _require_room(repairer: CacheRepairer, fitted: FittedPlan) -> None:
    """One shard is staged at a time, and takes the place of what is there."""
    bits = {layer: expected_bits(codec) for layer, codec in fitted.codecs.items()}
    sizes = dict(
        zip(
            repairer.shards,
            shard_sizes(fitted.plan, fitted.manifest, repairer.shards, bits),
            strict=True,
        )
    )
    growth = sum(max(0, size - repairer.bytes_of(shard)) for shard, size in sizes.items())
    examples = sum(len(fitted.plan.shards[shard]) for shard in repairer.shards)
    require_room(repairer.location, room_needed([growth + max(sizes.values())], examples))


def _other_numbers(
    address: str, error: OtherContentError, made: dict[str, Any], now: dict[str, Any]
) -> RunError:
    differing = [
        f"{name} {made.get(name)!r} then, {value!r} now"
        for name, value in now.items()
        if made.get(name) != value
    ]
    return RunError(
        f"{address}: {error}; the last bits depend on the machine"
        f" ({'; '.join(differing) or 'nothing known differs'}): repair where the cache was made, or"
        " accept them with --allow-other-numbers"
    )
