"""The settings of the extract that made a cache, as recorded in its manifest, validated."""

from __future__ import annotations

from typing import Any

from cache import CacheError, Manifest
from pipeline.conditions.cached import CACHED_PARTS
from pipeline.data.forms import FORM_NAMES
from pipeline.data.templates import TEMPLATE_NAMES
from pipeline.extract.settings import ExtractSettings
from pipeline.teacher.source import TEACHER_KINDS
from pipeline.upkeep.settings import RepairSettings

_DTYPES = ("fp32", "bf16")


def recorded_location(manifest: Manifest, name: str) -> str:
    """Return the recorded location of the `teacher` or the `dataset`.

    Raises:
        CacheError: it is not recorded.
    """
    value = manifest.provenance.get(name)
    if not isinstance(value, str):
        raise CacheError(f"the cache's manifest does not say what its {name} was; add --{name}")
    return value


def recorded_settings(manifest: Manifest, repair: RepairSettings) -> ExtractSettings:
    """Return the settings of the extract that made a cache.

    Args:
        manifest: of the cache.
        repair: its location, and settings that replace recorded ones.

    Raises:
        CacheError: a setting is not recorded, or invalid.
    """
    settings = ExtractSettings(
        teacher=repair.teacher or recorded_location(manifest, "teacher"),
        dataset=repair.dataset or recorded_location(manifest, "dataset"),
        cache=repair.cache,
        teacher_kind=manifest.identity.get("teacher_kind", "?"),
        format=manifest.format,
        **_codec_settings(manifest),
        layers=manifest.layers,
        dataset_config=manifest.provenance.get("dataset_config"),
        split=manifest.provenance.get("split", "train"),
        form=manifest.provenance.get("form"),
        template=manifest.identity.get("template", "?"),
        loss_on=manifest.identity.get("loss_on", "?"),
        condition=manifest.identity.get("condition", "?"),
        keep_head=manifest.identity.get("lm_head") is True,
        sharing=manifest.identity.get("sharing") is True,
        max_tokens=manifest.identity.get("max_tokens", 0),
        limit=manifest.identity.get("limit"),
        group_by=manifest.identity.get("group_by"),
        skip_bad_rows=manifest.provenance.get("skip_bad_rows", False),
        skip_non_finite=repair.skip_non_finite,
        shard_tokens=manifest.shard_tokens,
        device=repair.device,
        dtype=manifest.identity.get("compute_dtype", "?"),
    )
    valid = {
        "dataset_config": isinstance(settings.dataset_config, str | None),
        "split": isinstance(settings.split, str),
        "group_by": isinstance(settings.group_by, str | None),
        "form": settings.form in (None, *FORM_NAMES),
        "teacher_kind": settings.teacher_kind in TEACHER_KINDS,
        "template": settings.template in TEMPLATE_NAMES,
        "loss_on": settings.loss_on in ("assistant", "all"),
        "condition": settings.condition in tuple(CACHED_PARTS),
        "sharing": type(manifest.identity.get("sharing")) is bool,
        "lm_head": type(manifest.identity.get("lm_head")) is bool,
        "max_tokens": type(settings.max_tokens) is int and settings.max_tokens > 0,
        "limit": settings.limit is None or (type(settings.limit) is int and settings.limit > 0),
        "skip_bad_rows": type(settings.skip_bad_rows) is bool,
        "shard_tokens": settings.shard_tokens > 0,
        "compute_dtype": settings.dtype in _DTYPES,
    }
    if invalid := [name for name, is_valid in valid.items() if not is_valid]:
        raise CacheError(
            f"{repair.cache}: does not say how it was made (its {invalid[0]} is missing or unknown)"
        )
    return settings


def _codec_settings(manifest: Manifest) -> dict[str, Any]:
    """Return the codec options, as on the command line."""
    identity = manifest.identity.get("codec")
    codecs = identity if isinstance(identity, dict) else {}
    entries = {layer: codecs.get(str(layer)) for layer in manifest.layers}
    fitted = {layer: entry for layer, entry in entries.items() if isinstance(entry, dict)}
    requirements = {
        layer: str(entry.get("asked", "")).partition("=")
        for layer, entry in fitted.items()
        if "asked" in entry
    }
    settings: dict[str, Any] = {
        "codec": tuple(f"{layer}:{name}" for layer, name in manifest.codec_of.items()),
        "fidelity": tuple(
            f"{layer}:{measure}={value}"
            for layer, (measure, _, value) in requirements.items()
            if measure != "bits"
        ),
        "bits": tuple(
            f"{layer}:{value}"
            for layer, (measure, _, value) in requirements.items()
            if measure == "bits"
        ),
    }
    for entry in fitted.values():
        for name in ("calibration_tokens", "calibration_seed"):
            if type(entry.get(name)) is not int:
                raise CacheError(
                    f"the cache's manifest does not say how its codec was fitted ({name} is"
                    " missing); extract it again"
                )
            settings[name] = entry[name]
    return settings
