"""Fitting codecs to a seeded sample of the data set, before the teacher's pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from cache import Cache, CacheError, Manifest
from cache.codec_fits import read_codecs
from cache.codecs import EXACT, Codec
from cache.codecs.bf16 import Bf16
from cache.manifest import read_manifest
from cache.names import MANIFEST_NAME
from cache.storage import StorageLocation
from pipeline.codec_fit.fit import fit_codec
from pipeline.codec_fit.measures import divergence_of
from pipeline.codec_fit.requirements import CodecRequirement
from pipeline.codec_fit.sample import choose_sample, own_lengths, segments_of, split_sample
from pipeline.errors import RunError
from pipeline.extract.forward import TeacherPass
from pipeline.extract.plan import ExtractPlan
from pipeline.extract.work import TeacherWork
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.teacher.model import Teacher


def needs_lm_head(requirements: Mapping[int, CodecRequirement]) -> bool:
    """Return whether a requirement is a KL divergence."""
    return any(requirement.measure == "kl" for requirement in requirements.values())


def needs_fit(requirements: Mapping[int, CodecRequirement]) -> bool:
    """Return whether a codec must be fitted."""
    return any(requirement.name != EXACT for requirement in requirements.values())


def codecs_without_fitting(location: StorageLocation, plan: ExtractPlan) -> dict[int, Codec] | None:
    """Return the exact codecs, or those of the cache to resume; None if codecs must be fitted.

    Raises:
        CacheError: the cache's manifest or a fit is damaged.
    """
    if not needs_fit(plan.requirements):
        return {layer: Bf16() for layer in plan.requirements}
    return codecs_already_fitted(location, plan.requirements)


def codecs_already_fitted(
    location: StorageLocation, requirements: Mapping[int, CodecRequirement]
) -> dict[int, Codec] | None:
    """Return the codecs of a cache begun with the same requirements; None if there is none.

    Raises:
        CacheError: the cache's manifest or a fit is damaged.
    """
    with location.reporting_address():
        root = location.read().folder
        if not (root / MANIFEST_NAME).is_file():
            return None
        manifest = read_manifest(root)
        if not same_requirements(manifest, requirements):
            return None
        manifest.check_attachments(root)
        return read_codecs(root, manifest)


def same_requirements(manifest: Manifest, requirements: Mapping[int, CodecRequirement]) -> bool:
    """Return whether a cache has these codec requirements, whatever its fits are."""
    recorded = manifest.identity.get("codec")
    recorded = recorded if isinstance(recorded, dict) else {}
    return all(
        _without_fit(recorded.get(str(layer))) == requirement.identity
        for layer, requirement in requirements.items()
    )


def _without_fit(codec: Any) -> Any:
    if not isinstance(codec, dict):
        return codec
    return {name: value for name, value in codec.items() if name != "fit"}


def calibrate(
    work: TeacherWork, teacher: Teacher, progress: Progress = NO_PROGRESS
) -> dict[int, Codec]:
    """Read the sample with the teacher, and return each layer's codec fitted to it.

    A requirement holds on average over stored tokens: a shared prefix counts once, however many
    examples use it. Weighted by use, the KL divergence or relative error can be larger.

    Raises:
        InputError: no step meets a requirement.
        RunError: no example of the sample has finite states.
    """
    examples, sharing = work.examples, work.sharing
    seed = next(
        requirement.seed for requirement in work.requirements.values() if requirement.name != EXACT
    )
    lengths = [len(example) - sharing.shared_tokens(i) for i, example in enumerate(examples)]

    def prefix_lengths(index: int) -> dict[int, int]:
        path = sharing.path(sharing.of_example[index])
        return {number: len(sharing.prefixes[number]) for number in path}

    chosen = choose_sample(lengths, work.calibration_tokens, seed, prefix_lengths)
    progress.stage("calibration sample", sum(len(examples[index]) for index in chosen))
    prefixes = {number for index in chosen for number in prefix_lengths(index)}
    reader = TeacherPass(teacher, examples, sharing, work.most_batch_tokens, skip_non_finite=True)
    segments = reader.read(chosen, prefixes, progress).segments
    if not any(map(len, segments)):
        raise RunError(
            f"{work.dataset}: no example of the calibration sample has finite states;"
            " try --dtype fp32"
        )
    states = {
        layer: [segment.hidden_states[layer] for segment in segments] for layer in work.requirements
    }
    return fitted_codecs(work.requirements, states, teacher, progress)


def fitted_codecs(
    requirements: Mapping[int, CodecRequirement],
    segments: Mapping[int, Sequence[npt.NDArray[Any]]],
    teacher: Teacher | None,
    progress: Progress = NO_PROGRESS,
) -> dict[int, Codec]:
    """Return each layer's codec, fitted to segments of text.

    Args:
        requirements: of each layer.
        segments: states `[T, d_teacher]` of each layer whose codec needs a fit.
        teacher: with its LM head, if a requirement is a KL divergence.
        progress: shows the stages.

    Raises:
        InputError: no step meets a requirement.
    """
    codecs: dict[int, Codec] = {}
    for layer, requirement in requirements.items():
        progress.stage(f"fit layer {layer}")
        if requirement.name == EXACT:
            codecs[layer] = Bf16()
            continue
        divergence = None
        if teacher is not None and teacher.has_lm_head and teacher.is_last(layer):
            divergence = divergence_of(teacher)
        codecs[layer] = fit_codec(requirement, split_sample(segments[layer]), divergence)
    return codecs


def calibrate_on_cache(
    cache: Cache,
    requirements: Mapping[int, CodecRequirement],
    teacher: Teacher | None,
    progress: Progress = NO_PROGRESS,
) -> dict[int, Codec]:
    """Return codecs fitted to a sample of a cache's exact states; as in `calibrate`.

    Raises:
        CacheError: the cache has no examples.
        InputError: no step meets a requirement.
    """
    if not len(cache):
        raise CacheError(f"{cache.address}: has no examples to fit a codec to")
    lengths = own_lengths(cache)

    def prefix_lengths(index: int) -> dict[tuple[int, int], int]:
        path = cache.prefixes_of(index)
        starts = [0, *(prefix.length for prefix in path)]
        return {
            (prefix.record, prefix.segment): prefix.length - start
            for prefix, start in zip(path, starts, strict=False)
        }

    segments = {}
    for layer, required in requirements.items():
        if required.name != EXACT:
            tokens, seed = required.calibration_tokens, required.seed
            chosen = choose_sample(lengths, tokens, seed, prefix_lengths)
            progress.stage(f"calibration sample of layer {layer}")
            shared, own = segments_of(cache, chosen, layer)
            segments[layer] = [*shared, *own]
    return fitted_codecs(requirements, segments, teacher, progress)
