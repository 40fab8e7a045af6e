"""Extract the damaged and missing shards of a cache again."""

from __future__ import annotations

from typing import Any

from cache.codecs.fit_file import expected_bits
from cache.errors import OtherContentError
from cache.upkeep.repair import CacheRepairer
from cache.upkeep.space import require_room, room_needed
from pipeline.errors import RunError
from pipeline.extract.forward import TeacherPass
from pipeline.extract.plan import FittedPlan
from pipeline.extract.space import shard_sizes
from pipeline.progress import Progress
from pipeline.upkeep.original_extract import OriginalExtract, recorded_count


def extract_lost_shards(
    repairer: CacheRepairer,
    original: OriginalExtract,
    fitted: FittedPlan,
    progress: Progress,
    *,
    allow_other_numbers: bool,
) -> dict[int, bool | None]:
    """Replace the lost shards, computed in the same batches; return whose content is the same.

    Args:
        repairer: knows the lost shards.
        original: the extract that made the cache.
        fitted: its plan, with the codecs.
        progress: counts tokens.
        allow_other_numbers: accept shards whose content differs.

    Returns:
        By shard number; None where nothing is left to compare with.

    Raises:
        CacheError: the disk has too little room.
        RunError: numbers differ from the lost ones, or are not finite.
    """
    if not repairer.shards:
        return {}
    _require_room(repairer, fitted)
    plan = original.plan
    intact = {
        shard: record for shard, record in repairer.records.items() if shard not in repairer.shards
    }
    unusable = plan.unusable_prefixes(intact)
    examples = [example for shard in repairer.shards for example in plan.examples_of(shard)]
    progress.stage("extract", sum(map(len, examples)))
    same_content = {}
    for shard in repairer.shards:
        recorded, record = original.provenance(shard), repairer.records.get(shard)
        original.use_recorded_threads(recorded)
        reader = TeacherPass(
            original.teacher,
            plan.dataset.examples,
            plan.sharing,
            recorded_count(recorded, "batch_tokens") or plan.batch_tokens,
            skip_non_finite=plan.settings.skip_non_finite or bool(record and record.non_finite),
        )
        reader.leave_out(unusable)
        states = reader.read(plan.shards[shard], progress=progress)
        provenance = plan.work().provenance() | {"batch_tokens": states.batch_tokens}
        try:
            same_content[shard] = repairer.replace(
                shard,
                states.coded(fitted.codecs),
                non_finite=states.non_finite,
                provenance=provenance,
                other_content=allow_other_numbers,
            )
        except OtherContentError as error:
            address = repairer.location.address
            raise _other_numbers(address, error, recorded, provenance) from error
    return same_content


def _require_room(repairer: CacheRepairer, fitted: FittedPlan) -> None:
    """Refuse to begin without room for the growth of all shards and one staged shard."""
    bits = {layer: expected_bits(codec) for layer, codec in fitted.codecs.items()}
    sizes = shard_sizes(fitted.plan, fitted.manifest, repairer.shards, bits)
    growth = sum(
        max(0, size - repairer.bytes_of(shard))
        for shard, size in zip(repairer.shards, sizes, strict=True)
    )
    examples = sum(len(fitted.plan.shards[shard]) for shard in repairer.shards)
    require_room(repairer.location, room_needed([growth + max(sizes)], examples))


def _other_numbers(
    address: str, error: OtherContentError, recorded: dict[str, Any], now: dict[str, Any]
) -> RunError:
    differences = [
        f"{name} was {recorded.get(name)!r}, now it is {value!r}"
        for name, value in now.items()
        if recorded.get(name) != value
    ]
    return RunError(
        f"{address}: {error}; the last bits depend on the machine"
        f" ({'; '.join(differences) or 'no recorded difference'}): repair where the cache was made,"
        " or accept them with --allow-other-numbers"
    )
