"""What a run says of itself in run.json, and whether a run may be gone on with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cache.identity import differences
from cache.storage import StorageLocation, storage_location
from pipeline.conditions.cached import cached_part_of
from pipeline.errors import InputError
from pipeline.runs.folder import RunFolder, environment
from pipeline.runs.rows import describe_groups
from pipeline.runs.settings import TrainSettings

if TYPE_CHECKING:
    from cache import Cache

_NOT_COMPARED = {"cache", "endpoint", "run", "device", "loader_workers", "report_to"}


def new_record(
    settings: TrainSettings, cache: Cache, comparisons: Sequence[str], tokenizer: str
) -> dict[str, Any]:
    """The record of a run that is about to begin; `tokenizer` is the hash of the student's."""
    return {
        "kind": "llm-modules run",
        "finished": False,
        "leaks": settings.leaks or _is_told_what_comes(settings, cache),
        "comparisons": sorted(comparisons),
        "settings": settings.as_json(),
        "identity": {
            "cache": cache.identity,
            "content_digest": cache.content_digest,
            "student_tokenizer": tokenizer,
        },
        "kept_together": describe_groups(cache),
        "provenance": cache.manifest.provenance,
        "environment": environment(),
    }


def _is_told_what_comes(settings: TrainSettings, cache: Cache) -> bool:
    """Whether the states that are read know the answer: an encoder's of the whole text do, but for
    its embeddings."""
    knows = (
        cache.identity.get("teacher_kind") == "encoder" and cached_part_of(cache.identity).is_whole
    )
    return knows and set(settings.layers_read) - {0} != set()


def earlier_record(
    folder: RunFolder, record: dict[str, Any], *, resume: bool
) -> dict[str, Any] | None:
    """The record of the run to go on with, or None for a new one.

    Raises:
        InputError: the folder holds something else, a run that is not to be resumed, or one of
            other settings.
    """
    if not is_begun(folder, resume=resume):
        return None
    earlier = folder.read_record()
    was, now = (
        _compared_settings(each) | each["identity"]["cache"] | _content(each)
        for each in (earlier, record)
    )
    if found := differences(was, now):
        raise InputError(
            f"{folder.root}: cannot be resumed: {'; '.join(found)}; give what it began with, or a"
            " new --run"
        )
    return earlier


def is_begun(folder: RunFolder, *, resume: bool) -> bool:
    """Whether a run was begun in a folder.

    Raises:
        InputError: the folder holds something else, or a run that is not to be resumed.
    """
    if not folder.exists():
        if folder.root.exists() and (not folder.root.is_dir() or any(folder.root.iterdir())):
            raise InputError(
                f"{folder.root}: exists and is not a run; choose a new folder for --run"
            )
        return False
    if not resume:
        raise InputError(
            f"{folder.root}: holds a run already; pass --resume to go on with it, or choose a new"
            " folder for --run"
        )
    return True


def trained_from(folder: RunFolder) -> StorageLocation:
    """Where the cache of a finished run was.

    Raises:
        InputError: there is no finished run.
    """
    settings = folder.require_finished()["settings"]
    return storage_location(settings["cache"], settings.get("endpoint"))


def require_same_cache(cache: Cache, record: dict[str, Any]) -> None:
    """Refuse another cache than the one that a run was trained from.

    Raises:
        InputError: a field of the identity or the content differs; names each with both values.
    """
    was = {**record["identity"]["cache"], "content_digest": record["identity"]["content_digest"]}
    if found := differences(was, {**cache.identity, "content_digest": cache.content_digest}):
        raise InputError(
            f"{cache.address}: not the cache that the run was trained from: {'; '.join(found)}"
        )


def _compared_settings(record: dict[str, Any]) -> dict[str, Any]:
    return {
        f"--{name.replace('_', '-')}": value
        for name, value in record["settings"].items()
        if name not in _NOT_COMPARED
    }


def _content(record: dict[str, Any]) -> dict[str, Any]:
    """The content that a run depends on, and its own tokens where they are not the teacher's."""
    identity = record["identity"]
    names = ["content_digest"] + ["student_tokenizer"] * (
        identity["student_tokenizer"] != identity["cache"]["tokenizer"]
    )
    return {name: identity[name] for name in names}
