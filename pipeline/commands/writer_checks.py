"""Early checks of `generate`, `chat` and `answer`."""

from __future__ import annotations

from dataclasses import replace

from cache.storage import storage_location
from pipeline.commands.checks import require_cache, require_teacher, utf8_text
from pipeline.commands.devices import require_device
from pipeline.errors import InputError
from pipeline.generation.settings import Sampling, WriterSettings
from pipeline.runs.folder import RunFolder


def checked_writer(writer: WriterSettings) -> WriterSettings:
    """Return the settings with a system prompt in UTF-8.

    Raises:
        CacheError, InputError: something can be refused without loading torch.
    """
    settings = RunFolder(writer.run).require_finished().settings
    needs_teacher = settings.conditioning.needs_live_teacher
    require_device(writer.device)
    require_device(writer.teacher_device, "--teacher-device")
    require_teacher(writer.teacher if needs_teacher else None)  # else it may not be needed
    require_cache(None if writer.cache is None else storage_location(writer.cache))
    return replace(writer, system=utf8_text(writer.system, "--system"))


def checked_sampling(sampling: Sampling) -> Sampling:
    """Return the settings with stop texts in UTF-8; raise InputError for an empty one."""
    return replace(sampling, stop=checked_stop(sampling.stop))


def checked_stop(stop: tuple[str, ...]) -> tuple[str, ...]:
    """Return stop texts in UTF-8; raise InputError for an empty one."""
    if not all(stop):
        raise InputError("--stop: an empty text would end every answer before it begins; omit it")
    return tuple(utf8_text(text, "--stop") for text in stop)
