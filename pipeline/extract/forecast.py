"""Forecast of an extract before it starts: examples, bytes, disk space and time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cache.codecs import CODEC_NAMES, packing_named
from cache.containers import CONTAINER_NAMES
from cache.manifest import Manifest
from cache.upkeep.space import disk_needed, free_bytes
from cache.writer import require_resumable
from pipeline.codec_fit.requirements import ANY_LAYER, CodecRequirement
from pipeline.device import choose_device
from pipeline.extract.calibration import codecs_without_fitting
from pipeline.extract.plan import ExtractPlan
from pipeline.extract.space import required_bytes, shard_sizes
from pipeline.extract.speed_probe import probe_speed
from pipeline.progress import NO_PROGRESS, Progress

_DEFAULT_KLT = CodecRequirement("klt", *ANY_LAYER)


@dataclass(frozen=True)
class Forecast:
    """The expected cost of an extract.

    Attributes:
        examples, tokens: of the whole cache.
        left_out: rows that do not become examples, by reason.
        stored_tokens: of the whole cache; a shared prefix counts once.
        shards: of the whole cache; `missing_shards` of them are not written yet.
        bytes: of all shards without the codec fits, by container and codec; exact except for the
            codecs in `approximate`, whose rate depends on their fit.
        needed_bytes: disk space that the missing shards and everything stored with them need.
        free_bytes: free space on the cache's disk.
        fits: whether the free space is enough.
        load_seconds: loading the teacher.
        probe_tokens: that the speed was measured on.
        tokens_per_second: of the teacher's pass; None if nothing is left to compute.
        seconds: of the teacher's pass over the calibration sample and the missing shards.
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
    """Count and measure what an extract needs; write nothing.

    Args:
        plan: the extract.
        progress: shows the stages.

    Raises:
        CacheError: the location has another cache, or something else.
        InputError: the teacher's weights cannot be loaded.
    """
    location = plan.location
    codecs = codecs_without_fitting(location, plan)
    manifest = plan.fitted(codecs).manifest if codecs else plan.manifest
    missing = require_resumable(location, manifest)
    progress.stage("exact sizes")
    choices = list(dict.fromkeys([*CODEC_NAMES, manifest.codec]))  # also the plan's codec per layer
    sizes = {
        container: {codec: _bytes(plan, manifest, container, codec) for codec in choices}
        for container in CONTAINER_NAMES
    }
    stored_tokens = plan.stored_tokens(range(manifest.shards))
    sample_tokens = 0 if codecs else min(plan.work().calibration_tokens, stored_tokens)
    needed = disk_needed(location, required_bytes(plan, manifest, missing))
    free = free_bytes(location.folder)
    examples = [example for shard in missing for example in plan.examples_of(shard)]
    probe = probe_speed(plan, examples, progress) if examples else None
    return Forecast(
        cache=location.address,
        examples=manifest.examples,
        left_out=plan.dataset.left_out,
        tokens=manifest.tokens,
        stored_tokens=stored_tokens,
        shards=manifest.shards,
        missing_shards=len(missing),
        bytes=sizes,
        approximate=[
            codec for codec in choices if not all(map(_has_fixed_rate, _codecs(manifest, codec)))
        ],
        needed_bytes=needed,
        free_bytes=free,
        fits=needed <= free,
        device=str(choose_device(plan.settings.device)),
        compute_dtype=str(manifest.identity["compute_dtype"]),
        load_seconds=probe.load_seconds if probe else None,
        probe_tokens=probe.tokens if probe else 0,
        tokens_per_second=round(probe.tokens_per_second, 1) if probe else None,
        seconds=probe.seconds(plan.stored_tokens(missing) + sample_tokens) if probe else 0.0,
        unshared=plan.unshared,
    )


def _codecs(manifest: Manifest, codec: str) -> tuple[str, ...]:
    """Return each layer's codec; `codec` may be the manifest's own mix of codecs."""
    return manifest.codecs if codec == manifest.codec else (codec,) * len(manifest.layers)


def _has_fixed_rate(codec: str) -> bool:
    return packing_named(codec).spec(1, 1) is not None


def _bytes(plan: ExtractPlan, manifest: Manifest, container: str, codec: str) -> int:
    """Return the bytes of all shards in a container and codec."""
    codecs = _codecs(manifest, codec)
    of_layer = dict(zip(manifest.layers, codecs, strict=True))
    identity = {
        "codec": {str(layer): {"name": name, "fit": "0" * 64} for layer, name in of_layer.items()}
    }
    manifest = replace(manifest, format=container, codecs=codecs, identity=identity)
    bits = {
        layer: (required if required.name == of_layer[layer] else _DEFAULT_KLT).expected_bits
        for layer, required in plan.requirements.items()
    }
    return sum(shard_sizes(plan, manifest, range(manifest.shards), bits))
