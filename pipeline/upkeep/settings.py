"""The settings of a cache's upkeep: each field is the option of that name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pipeline.codec_fit.options import Codec, CodecOptions
from pipeline.option import Device, MovedTeacher, Option, Seed


@dataclass(frozen=True, kw_only=True)
class RecodeSettings(CodecOptions):
    """The new codecs of a cache, for `cache convert`; layers without one keep theirs."""

    codec: Codec = ()
    teacher: MovedTeacher = None
    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class RecheckSettings:
    """A comparison with the live teacher, for `cache verify --deep`."""

    sample: Annotated[int, Option("Examples to compare.", at_least=1)] = 16
    seed: Seed = 0
    teacher: MovedTeacher = None
    device: Device = "auto"
