"""Open the student of a finished run for generation."""

from __future__ import annotations

from cache import Cache, CacheError, open_cache
from cache.storage import LocationLike, StorageLocation, storage_location
from pipeline.conditions.cached import cached_part_of
from pipeline.device import choose_device
from pipeline.errors import InputError
from pipeline.generation.settings import WriterSettings
from pipeline.generation.writer import StudentWriter
from pipeline.runs.folder import RunFolder
from pipeline.teacher.model import Teacher
from pipeline.teacher.verified_load import load_verified_teacher

_MAX_SEARCHED = 1_000_000_000
"""Maximum bytes of a cache that is searched for prompts by default."""


def open_writer(settings: WriterSettings, *, keep_teacher: bool = True) -> StudentWriter:
    """Load a finished run's student, and the teacher if it needs one for every token.

    Args:
        settings: run, devices, and current locations of teacher and prompts.
        keep_teacher: keep the teacher in memory between prompts.

    Raises:
        InputError: the run is not finished, or an option does not apply to it.
    """
    folder, device = RunFolder(settings.run), choose_device(settings.device)
    record = folder.require_finished()
    trained = record.settings
    if not trained.reads_states and (settings.teacher or settings.teacher_device):
        raise InputError(
            f"--teacher, --teacher-device: {settings.run} is a run of --condition"
            f" {trained.condition}, without a teacher; omit them"
        )
    teacher_device = device
    if settings.teacher_device is not None:
        teacher_device = choose_device(settings.teacher_device, "--teacher-device")
    name = settings.teacher or record.provenance["teacher"]

    def load() -> Teacher:
        return load_verified_teacher(
            name, trained.layers_read, record.identity.cache, teacher_device
        )

    reads_prompts = trained.conditioning.reads_prompt_states
    if settings.cache is not None and not reads_prompts:
        raise InputError(
            f"--cache: is searched for prompts, but {settings.run} is a run of --condition"
            f" {trained.condition}; omit it"
        )
    prompts = _cached_prompts(folder, settings.cache) if reads_prompts else None
    return StudentWriter(
        folder,
        load if trained.reads_states else None,
        device,
        prompts,
        keep_teacher=keep_teacher,
    )


def _cached_prompts(run: RunFolder, address: LocationLike | None) -> Cache | None:
    """Return the cache of prompts to search, if there is one.

    Without an address it is the run's, if that is a small local folder: a search may read many
    whole shards.
    """
    if address is not None:
        return _named_prompts(run, storage_location(address))
    location = run.require_finished().cache_location
    if location.is_remote:
        return None
    try:
        cache = open_cache(location)
        run.read_record().require_same_cache(cache)
    except (CacheError, InputError, OSError):
        return None
    return cache if _holds_prompts(cache) and cache.bytes <= _MAX_SEARCHED else None


def _named_prompts(run: RunFolder, location: StorageLocation) -> Cache:
    """Open the cache of prompts that the user named."""
    cache = open_cache(location)
    run.read_record().require_same_cache(cache)
    if not _holds_prompts(cache):
        raise InputError(f"--cache {location.address}: holds whole examples, not prompts; omit it")
    return cache


def _holds_prompts(cache: Cache) -> bool:
    return not cached_part_of(cache.identity).is_whole
