"""Begin or resume a run: the record of a new one, compared with an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cache.identity import differences
from cache.storage import storage_location
from pipeline.conditions.cached import cached_part_of
from pipeline.errors import InputError
from pipeline.json_dataclasses import to_json
from pipeline.runs.environment import environment
from pipeline.runs.folder import RunFolder
from pipeline.runs.record import RunIdentity, RunRecord
from pipeline.runs.rows import describe_groups
from pipeline.runs.settings import TrainSettings

if TYPE_CHECKING:
    from cache import Cache

_NOT_COMPARED = {"cache", "run", "device", "loader_workers", "report_to"}


def new_record(
    settings: TrainSettings, cache: Cache, comparisons: Sequence[str], tokenizer: str
) -> RunRecord:
    """Return the record of a run that is about to begin.

    Args:
        settings: of the run.
        cache: its cache, open.
        comparisons: names of its comparison runs.
        tokenizer: hash of the student's tokenizer.
    """
    location = storage_location(settings.cache)
    return RunRecord(
        settings=replace(settings, cache=location.recorded_address, run=settings.run.resolve()),
        endpoint=location.endpoint,
        identity=RunIdentity(
            cache=cache.identity,
            content_digest=cache.content_digest,
            student_tokenizer=tokenizer,
        ),
        provenance=cache.manifest.provenance,
        leaks=settings.leaks or _states_see_answer(settings, cache),
        comparisons=tuple(sorted(comparisons)),
        kept_together=describe_groups(cache),
        environment=environment(),
    )


def earlier_record(folder: RunFolder, record: RunRecord, *, resume: bool) -> RunRecord | None:
    """Return the record of the run to resume; None for a new run.

    Raises:
        InputError: the folder holds something else, a run without `resume`, or a run of other
            settings.
    """
    if not is_begun(folder, resume=resume):
        return None
    earlier = folder.read_record()
    if differing := differences(_compared(earlier), _compared(record)):
        raise InputError(
            f"{folder.root}: cannot be resumed: {'; '.join(differing)}; repeat its original"
            " options, or choose a new --run"
        )
    return earlier


def is_begun(folder: RunFolder, *, resume: bool) -> bool:
    """Return whether a run was begun in a folder.

    Raises:
        InputError: the folder holds something else, or a run without `resume`.
    """
    if not folder.exists():
        if folder.root.exists() and (not folder.root.is_dir() or any(folder.root.iterdir())):
            raise InputError(
                f"{folder.root}: exists and is not a run; choose a new folder for --run"
            )
        return False
    if not resume:
        raise InputError(
            f"{folder.root}: already holds a run; pass --resume to continue it, or choose a new"
            " folder for --run"
        )
    return True


def _states_see_answer(settings: TrainSettings, cache: Cache) -> bool:
    """Return whether states come from an encoder of the whole text; its embeddings do not count."""
    sees_all = (
        cache.identity.get("teacher_kind") == "encoder" and cached_part_of(cache.identity).is_whole
    )
    return sees_all and set(settings.layers_read) - {0} != set()


def _compared(record: RunRecord) -> dict[str, Any]:
    """Return everything that resumed steps depend on, by names for the user."""
    options = {
        f"--{name.replace('_', '-')}": value
        for name, value in to_json(record.settings).items()
        if name not in _NOT_COMPARED
    }
    identity = record.identity
    content = {"content_digest": identity.content_digest}
    if identity.student_tokenizer != identity.cache["tokenizer"]:  # the student's own tokens
        content["student_tokenizer"] = identity.student_tokenizer
    return options | identity.cache | content
