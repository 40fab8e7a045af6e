"""What an extract will take, before it is begun: examples, bytes, room on the disk, time."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from cache.codecs import CODEC_NAMES, packing_named
from cache.containers import CONTAINER_NAMES
from cache.manifest import Manifest
from cache.upkeep.space import disk_needed, free_bytes
from cache.writer import require_resumable
from pipeline.codec_fit.requirements import ANY_LAYER, CodecRequirement
from pipeline.data.tokenized_dataset import TokenizedExample
from pipeline.device import choose_device, choose_dtype
from pipeline.extract.batching import plan_batches
from pipeline.extract.calibration import codecs_without_fitting
from pipeline.extract.padded_batch import read_batch
from pipeline.extract.plan import ExtractPlan
from pipeline.extract.space import required_bytes, shard_sizes
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.teacher.load import load_teacher

_PROBE_BATCHES = 8
_USUAL = CodecRequirement("klt", *ANY_LAYER)
_PROBE_SECONDS = 20.0


@dataclass(frozen=True)
class Forecast:
    """What is to be expected.

    Attributes:
        examples, tokens: of the whole cache.
        left_out: rows that will not become examples, by reason.
        shards: of the whole cache; `missing_shards` of them are still to be written.
        bytes: what the whole cache's shards will take, by format and codec, and what their codecs
            are fitted with apart: exactly, but for the codecs of no fixed rate that `approximate`
            names, of which more is known once they are fitted.
        stored_tokens: tokens that will be computed and stored, what examples share once.
        needed_bytes: room that the missing shards need in the format and codec asked for, with all
            that stands beside them.
        free_bytes: room on the cache's disk; `fits` says whether it is enough.
        load_seconds: loading the teacher.
        tokens_per_second: of a probe of batches from the whole range of lengths, `probe_tokens`
            tokens.
        seconds: of the teacher's pass over the calibration sample and the missing shards, at that
            speed; what examples share is read once.
        unshared: as in `ExtractResult`.
    """

    cache: str
    examples: int
    left_out: dict[str, int]
    tokens: int
    stored_tokens: int
    shards: int
    missing_shards: int
    bytes: dict[str, dict[str, int]]
    approximate: list[str]
    needed_bytes: int
    free_bytes: int
    fits: bool
    device: str
    compute_dtype: str
    load_seconds: float | None
    probe_tokens: int
    tokens_per_second: float | None
    seconds: float
    unshared: str | None


def forecast(plan: ExtractPlan, progress: Progress = NO_PROGRESS) -> Forecast:
    """Count, weigh and probe; nothing is written.

    Args:
        plan: the extract in question.
        progress: shows the stages.

    Raises:
        CacheError: the cache's folder holds another run's cache, or something else.
        InputError: the teacher's weights cannot be loaded.
    """
    settings = plan.settings
    location = settings.location
    codecs = codecs_without_fitting(location, plan)
    manifest = plan.fitted(codecs).manifest if codecs else plan.manifest
    missing = require_resumable(location, manifest)
    progress.stage("exact sizes")
    mixes = dict.fromkeys(
        [*CODEC_NAMES, manifest.codec]
    )  # what is asked may differ from layer to layer
    sizes = {
        name: {codec: sum(_sizes(plan, manifest, name, codec)) for codec in mixes}
        for name in CONTAINER_NAMES
    }
    left = [example for shard in missing for example in plan.examples_of(shard)]
    stored = plan.stored_tokens(missing)
    calibration = (
        0
        if codecs
        else min(plan.work().calibration_tokens, plan.stored_tokens(range(manifest.shards)))
    )
    needed, free = (
        disk_needed(location, required_bytes(plan, manifest, missing)),
        free_bytes(location.folder),
    )
    load_seconds, tokens, speed = _probe(plan, left, progress) if left else (None, 0, None)
    device = choose_device(settings.device)
    return Forecast(
        cache=location.address,
        examples=manifest.examples,
        left_out=plan.dataset.left_out,
        tokens=manifest.tokens,
        stored_tokens=plan.stored_tokens(range(manifest.shards)),
        shards=manifest.shards,
        missing_shards=len(missing),
        bytes=sizes,
        approximate=[
            codec for codec in mixes if not all(map(_of_fixed_rate, _codecs_of(manifest, codec)))
        ],
        needed_bytes=needed,
        free_bytes=free,
        fits=needed <= free,
        device=str(device),
        compute_dtype=str(manifest.identity["compute_dtype"]),
        load_seconds=load_seconds,
        probe_tokens=tokens,
        tokens_per_second=speed,
        seconds=round((stored + calibration) / speed, 1) if speed else 0.0,
        unshared=plan.unshared,
    )


def _codecs_of(manifest: Manifest, codec: str) -> tuple[str, ...]:
    """Each layer's codec: that one, or those that are asked."""
    return manifest.codecs if codec == manifest.codec else (codec,) * len(manifest.layers)


def _of_fixed_rate(codec: str) -> bool:
    return packing_named(codec).spec(1, 1) is not None


def _sizes(plan: ExtractPlan, manifest: Manifest, container: str, codec: str) -> list[int]:
    codecs = _codecs_of(manifest, codec)
    of_layer = dict(zip(manifest.layers, codecs, strict=True))
    identity = {
        "codec": {str(layer): {"name": name, "fit": "0" * 64} for layer, name in of_layer.items()}
    }
    manifest = replace(manifest, format=container, codecs=codecs, identity=identity)
    rates = {
        layer: asked.expected_bits if asked.name == of_layer[layer] else _USUAL.expected_bits
        for layer, asked in plan.requirements.items()
    }
    return shard_sizes(plan, manifest, range(manifest.shards), rates)


def _probe(
    plan: ExtractPlan, left: list[TokenizedExample], progress: Progress
) -> tuple[float, int, float]:
    """Seconds to load the teacher, tokens read, tokens a second: batches evenly spaced from the
    longest to the shortest."""
    settings = plan.settings
    device = choose_device(settings.device)
    progress.stage("loading the teacher")
    began = time.perf_counter()
    teacher = load_teacher(
        plan.source, settings.layers, device, choose_dtype(settings.dtype, device)
    )
    load_seconds = time.perf_counter() - began
    progress.stage("probing its speed")
    batches = plan_batches([len(example) for example in left], plan.batch_tokens)
    chosen = [
        batches[i * len(batches) // min(_PROBE_BATCHES, len(batches))]
        for i in range(min(_PROBE_BATCHES, len(batches)))
    ]
    # Outer ones and inner ones by turns, so that a probe cut short by its time limit has seen both
    # long and short examples.
    chosen = [batch for pair in zip(chosen, reversed(chosen), strict=True) for batch in pair][
        : len(chosen)
    ]
    read_batch(
        teacher, [left[i] for i in chosen[0]][:1]
    )  # the first pass is slower than all others
    tokens, began = 0, time.perf_counter()
    for batch in chosen:
        read_batch(teacher, [left[i] for i in batch])
        tokens += sum(len(left[i]) for i in batch)
        if time.perf_counter() - began > _PROBE_SECONDS:
            break
    return round(load_seconds, 2), tokens, round(tokens / (time.perf_counter() - began), 1)
