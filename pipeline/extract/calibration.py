"""Fitting the codecs that lose something to a seeded sample of the data set, before its one
pass."""

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


def needs_lm_head(asked: Mapping[int, CodecRequirement]) -> bool:
    """Whether a KL divergence is to be measured."""
    return any(each.measure == "kl" for each in asked.values())


def needs_fit(asked: Mapping[int, CodecRequirement]) -> bool:
    """Whether a codec is to be fitted."""
    return any(each.name != EXACT for each in asked.values())


def codecs_without_fitting(location: StorageLocation, plan: ExtractPlan) -> dict[int, Codec] | None:
    """The codecs of a cache that is gone on with; those that need no fit; None where they are still
    to be fitted.

    Raises:
        CacheError: there is a cache, and its manifest or a fit is damaged.
    """
    if not needs_fit(plan.requirements):
        return {layer: Bf16() for layer in plan.requirements}
    return codecs_already_fitted(location, plan.requirements)


def codecs_already_fitted(
    location: StorageLocation, asked: Mapping[int, CodecRequirement]
) -> dict[int, Codec] | None:
    """The codecs of a cache that has been begun with what is asked; None where none has been.

    Raises:
        CacheError: there is a cache, and its manifest or a fit is damaged.
    """
    with location.reporting_address():
        root = location.read().folder
        if not (root / MANIFEST_NAME).is_file():
            return None
        manifest = read_manifest(root)
        if not same_requirements(manifest, asked):
            return None
        manifest.check_attachments(root)
        return read_codecs(root, manifest)


def same_requirements(manifest: Manifest, asked: Mapping[int, CodecRequirement]) -> bool:
    """Whether a cache's codecs of some layers are what is asked, their fits aside."""
    told = manifest.identity.get("codec")
    told = told if isinstance(told, dict) else {}
    return all(_without_fit(told.get(str(layer))) == each.identity for layer, each in asked.items())


def _without_fit(codec: Any) -> Any:
    return (
        {name: value for name, value in codec.items() if name != "fit"}
        if isinstance(codec, dict)
        else codec
    )


def calibrate(
    work: TeacherWork, teacher: Teacher, progress: Progress = NO_PROGRESS
) -> dict[int, Codec]:
    """Read the sample with the teacher, and fit each layer's codec to it.

    Raises:
        InputError: no step gives what is asked.
        RunError: no example of the sample has finite states.
    """
    examples = work.examples
    seed = next(each.seed for each in work.requirements.values() if each.name != EXACT)
    sharing = work.sharing
    own = [len(example) - sharing.before(index) for index, example in enumerate(examples)]

    def shared(index: int) -> dict[int, int]:
        path = sharing.path(sharing.of_example[index])
        return {
            number: sharing.prefixes[number].stop - sharing.prefixes[number].start
            for number in path
        }

    chosen = choose_sample(own, work.calibration_tokens, seed, shared)
    progress.stage("calibration sample", sum(len(examples[index]) for index in chosen))
    needed = {number for index in chosen for number in shared(index)}
    reader = TeacherPass(teacher, examples, sharing, work.most_batch_tokens, skip_non_finite=True)
    segments = reader.read(chosen, needed, progress).segments
    if not any(map(len, segments)):
        raise RunError(
            f"{work.dataset}: no example of the calibration sample has finite states;"
            " try --dtype fp32"
        )
    return fitted_codecs(
        work.requirements,
        {
            layer: [segment.hidden_states[layer] for segment in segments]
            for layer in work.requirements
        },
        teacher,
        progress,
    )


def fitted_codecs(
    asked: Mapping[int, CodecRequirement],
    segments: Mapping[int, Sequence[npt.NDArray[Any]]],
    teacher: Teacher | None,
    progress: Progress = NO_PROGRESS,
) -> dict[int, Codec]:
    """Each layer's codec, fitted to segments of text `[T, d_teacher]`.

    Args:
        asked: of each layer.
        segments: of each layer whose codec is to be fitted.
        teacher: with its LM head, where a KL divergence is asked for.
        progress: shows the stages.
    """
    codecs: dict[int, Codec] = {}
    for layer, each in asked.items():
        progress.stage(f"fit layer {layer}")
        if each.name == EXACT:
            codecs[layer] = Bf16()
            continue
        reads_head = teacher is not None and teacher.has_lm_head and teacher.is_last(layer)
        divergence = divergence_of(teacher) if reads_head and teacher is not None else None
        codecs[layer] = fit_codec(each, split_sample(segments[layer]), divergence)
    return codecs


def calibrate_on_cache(
    cache: Cache,
    asked: Mapping[int, CodecRequirement],
    teacher: Teacher | None,
    progress: Progress = NO_PROGRESS,
) -> dict[int, Codec]:
    """Fit codecs to a sample of a cache's own exact states; layers whose codec is to stay keep it.

    Raises:
        CacheError: the cache has no examples.
        InputError: no step gives what is asked.
    """
    if not len(cache):
        raise CacheError(f"{cache.address}: has no examples to fit a codec to")
    lengths = own_lengths(cache)

    def shared_by(index: int) -> dict[tuple[int, int], int]:
        path = cache.prefixes_of(index)
        starts = [0, *(prefix.length for prefix in path)]
        return {
            (each.record, each.segment): each.length - start
            for each, start in zip(path, starts, strict=False)
        }

    segments = {}
    for layer, each in asked.items():
        if each.name != EXACT:
            chosen = choose_sample(lengths, each.calibration_tokens, each.seed, shared_by)
            progress.stage(f"calibration sample of layer {layer}")
            shared, own = segments_of(cache, chosen, layer)
            segments[layer] = [*shared, *own]
    return fitted_codecs(asked, segments, teacher, progress)
