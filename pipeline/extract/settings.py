"""The settings of an extract: its options, what follows from them, and their contradictions."""

from __future__ import annotations

from dataclasses import dataclass

from cache.storage import StorageLocation, storage_location
from pipeline.codec_fit.options import CodecOptions
from pipeline.conditions.cached import CACHED_PARTS, CachedPart
from pipeline.data.options import RowOptions
from pipeline.errors import InputError
from pipeline.extract.options import JobOptions, PassOptions, StoreOptions, TokenOptions


@dataclass(frozen=True, kw_only=True)
class ExtractSettings(
    JobOptions, RowOptions, TokenOptions, StoreOptions, CodecOptions, PassOptions
):
    """One extract; each field is the option of that name of `extract`.

    Attributes:
        options: the command's options as YAML, recorded with the cache.
    """

    options: str = ""

    @property
    def location(self) -> StorageLocation:
        """Return where the cache is written."""
        return storage_location(self.cache)

    @property
    def cached_part(self) -> CachedPart:
        """Return which part of each example is cached."""
        return CACHED_PARTS[self.condition]

    @property
    def shares(self) -> bool:
        """Return whether states of leading tokens are shared; an encoder's differ by text."""
        return self.sharing and self.teacher_kind == "decoder"

    def require_sense(self) -> None:
        """Raise InputError for options that contradict each other."""
        if self.keep_head and self.teacher_kind == "encoder":
            raise InputError("--keep-head: an encoder has no LM head; omit it")
        if not self.cached_part.is_whole and self.keep_head:
            raise InputError(
                "--keep-head: with --condition prompt the student has its own LM head; omit it"
            )
        if not self.cached_part.is_whole and self.loss_on == "all":
            raise InputError(
                "--loss-on all: with --condition prompt the student learns only the answers; omit"
                " it"
            )
