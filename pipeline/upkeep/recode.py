"""New codecs for an existing cache, fitted to its own exact states."""

from __future__ import annotations

from dataclasses import replace

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
from pipeline.upkeep.recorded_settings import recorded_location
from pipeline.upkeep.settings import RecodeSettings


def new_codecs(
    source: LocationLike,
    target: LocationLike,
    settings: RecodeSettings,
    progress: Progress = NO_PROGRESS,
) -> dict[int, Codec]:
    """Return the codecs of the layers to encode again.

    If the target was begun with the same requirements, its codecs are returned, not fitted again.

    Args:
        source: a complete cache.
        target: location of its conversion.
        settings: the new requirements.
        progress: shows the stages.

    Raises:
        CacheError: the source is incomplete, or a layer to encode again is not stored exactly.
        InputError: a codec cannot meet its requirement, or the teacher is needed and missing.
    """
    source, target = storage_location(source), storage_location(target)
    require_separate(source, target)
    with open_cache(source) as cache:
        requirements = _changed_requirements(cache, settings)
        for layer, requirement in requirements.items():
            require_exact(cache, layer, requirement.name)
            packing = packing_named(requirement.name)
            for record in cache.records:
                packing.require_packable(record.stored.tolist(), cache.hidden_size)
        if settings.teacher and not needs_lm_head(requirements):
            raise InputError(
                "--teacher: no KL divergence is required, so the teacher is not needed; leave it"
                " out"
            )
        if not requirements:
            return {}
        if (earlier := codecs_already_fitted(target, requirements)) is not None:
            return {layer: earlier[layer] for layer in requirements}
        teacher = None
        if needs_lm_head(requirements):
            progress.stage("loading the LM head")
            teacher = load_verified_teacher(
                settings.teacher or recorded_location(cache.manifest, "teacher"),
                list(requirements),
                cache.identity,
                choose_device(settings.device),
                with_lm_head=True,
            )
        return calibrate_on_cache(cache, requirements, teacher, progress)


def _changed_requirements(cache: Cache, settings: RecodeSettings) -> dict[int, CodecRequirement]:
    """Return the requirements of the layers to encode again."""
    names = by_layer("--codec", settings.codec, cache.layers)
    explicit = {
        **by_layer("--fidelity", settings.fidelity, cache.layers),
        **by_layer("--bits", settings.bits, cache.layers),
    }
    codec = tuple(f"{layer}:{names.get(layer, EXACT)}" for layer in cache.layers)
    requirements = codec_requirements(
        cache.layers,
        _lm_head_layer(cache, settings),
        replace(settings, codec=codec),
        default_of_last=ANY_LAYER,
    )
    current = cache.manifest.codec_of
    return {
        layer: requirement
        for layer, requirement in requirements.items()
        if layer in names and (names[layer] != current[layer] or layer in explicit)
    }


def _lm_head_layer(cache: Cache, settings: RecodeSettings) -> int | None:
    """Return the layer that the LM head reads; None if no KL divergence is required.

    The teacher may be missing, so its configuration is loaded only if it matters.
    """
    values = [text.rpartition(":")[2] for text in settings.fidelity]
    if not any(value.startswith("kl=") or value in PRESETS for value in values):
        return None
    name = settings.teacher or recorded_location(cache.manifest, "teacher")
    return lm_head_layer(name, cache.layers, cache.identity)
