"""New codecs for a cache that is there already, fitted to its own exact states."""

from __future__ import annotations

from dataclasses import dataclass

from cache import Cache, open_cache
from cache.codecs import EXACT, Codec, packing_named
from cache.location import require_separate
from cache.storage import LocationLike, storage_location
from cache.upkeep.convert import require_exact
from pipeline.codec_fit.requirements import (
    ANY_LAYER,
    PRESETS,
    CodecRequirement,
    by_layer,
    codec_requirements,
)
from pipeline.device import choose_device
from pipeline.errors import InputError
from pipeline.extract.calibration import calibrate_on_cache, codecs_already_fitted, needs_lm_head
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.teacher.verified_load import lm_head_layer, load_verified_teacher
from pipeline.upkeep.recorded_settings import recorded


@dataclass(frozen=True, kw_only=True)
class RecodeSettings:
    """What is asked of a cache's new codecs; each field is the option of that name."""

    codec: tuple[str, ...] = ()
    fidelity: tuple[str, ...] = ()
    bits: tuple[str, ...] = ()
    calibration_tokens: int = 32768
    calibration_seed: int = 0
    teacher: str | None = None
    device: str = "auto"


def new_codecs(
    source: LocationLike,
    target: LocationLike,
    settings: RecodeSettings,
    progress: Progress = NO_PROGRESS,
) -> dict[int, Codec]:
    """The codecs of the layers that are to be coded anew.

    Where the target has been begun with what is asked, its codecs are taken: they need not be
        fitted twice.

    Args:
        source: a whole cache.
        target: where its conversion is to lie.
        settings: what is asked.
        progress: shows the stages.

    Raises:
        CacheError: the source is not a whole cache, or a layer to be coded anew is not stored
            exactly.
        InputError: something is asked of a codec that it cannot give, or the teacher is needed and
            not to be had.
    """
    source, target = storage_location(source), storage_location(target)
    require_separate(source, target)
    with open_cache(source) as cache:
        asked = _asked(cache, settings)
        for layer, each in asked.items():
            require_exact(cache, layer, each.name)
            for record in cache.records:
                packing_named(each.name).require_packable(record.stored.tolist(), cache.hidden_size)
        if settings.teacher and not needs_lm_head(asked):
            raise InputError(
                "--teacher: no KL divergence is asked for, so the teacher is not needed; leave"
                " it out"
            )
        if not asked:
            return {}
        if (earlier := codecs_already_fitted(target, asked)) is not None:
            return {layer: earlier[layer] for layer in asked}
        teacher = None
        if needs_lm_head(asked):
            progress.stage("loading the LM head")
            name = settings.teacher or recorded(cache.manifest, "teacher")
            teacher = load_verified_teacher(
                name, [*asked], cache.identity, choose_device(settings.device), with_lm_head=True
            )
        return calibrate_on_cache(cache, asked, teacher, progress)


def _asked(cache: Cache, settings: RecodeSettings) -> dict[int, CodecRequirement]:
    """What is asked of the layers that are not to stay as they are."""
    named = by_layer("--codec", settings.codec, cache.layers)
    told = {
        **by_layer("--fidelity", settings.fidelity, cache.layers),
        **by_layer("--bits", settings.bits, cache.layers),
    }
    asked = codec_requirements(
        cache.layers,
        _layer_of_lm_head(cache, settings),
        codec=tuple(f"{layer}:{named.get(layer, EXACT)}" for layer in cache.layers),
        fidelity=settings.fidelity,
        bits=settings.bits,
        calibration_tokens=settings.calibration_tokens,
        seed=settings.calibration_seed,
        default_of_last=ANY_LAYER,
    )
    was = cache.manifest.codec_of
    return {
        layer: each
        for layer, each in asked.items()
        if layer in named and (named[layer] != was[layer] or layer in told)
    }


def _layer_of_lm_head(cache: Cache, settings: RecodeSettings) -> int | None:
    """Asked only where it matters: the teacher may be gone."""
    if not any(
        text.rpartition(":")[2].startswith("kl=") or text.rpartition(":")[2] in PRESETS
        for text in settings.fidelity
    ):
        return None
    return lm_head_layer(
        settings.teacher or recorded(cache.manifest, "teacher"), cache.layers, cache.identity
    )
