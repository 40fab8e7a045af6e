"""The settings of a cache's upkeep: each field is the option of that name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cache.storage import LocationLike
from pipeline.codec_fit.options import Codec, CodecOptions
from pipeline.option import Device, MovedDataset, MovedTeacher, Option, SkipNonFinite


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
    seed: Annotated[int, Option("Seed of the random sample.")] = 0
    teacher: MovedTeacher = None
    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class RepairSettings:
    """A repair, for `cache repair`.

    Attributes:
        cache: location of the cache.
    """

    cache: LocationLike
    teacher: MovedTeacher = None
    dataset: MovedDataset = None
    device: Device = "auto"
    skip_non_finite: SkipNonFinite = False
    allow_other_numbers: Annotated[
        bool,
        Option(
            "Accept shards whose numbers differ from the lost ones, as on another machine; the"
            " content digest changes."
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class FidelitySettings:
    """A comparison of codecs, for `cache fidelity`.

    Attributes:
        cache: location of the cache.
    """

    cache: LocationLike
    layer: Annotated[int | None, Option("Measure only this layer.", default="all")] = None
    tokens: Annotated[int, Option("Tokens to measure on.", at_least=2)] = 65536
    kl_tokens: Annotated[
        int, Option("Tokens of these whose KL divergence is measured.", at_least=2)
    ] = 4096
    calibration_tokens: Annotated[
        int,
        Option(
            "Tokens to fit the codecs to, from other examples; at most half of all.", at_least=1
        ),
    ] = 32768
    seed: Annotated[int, Option("Seed of both samples.")] = 0
    kl: Annotated[
        bool, Option("Measure KL divergences of the last layer, which needs the teacher.")
    ] = True
    teacher: MovedTeacher = None
    device: Device = "auto"
