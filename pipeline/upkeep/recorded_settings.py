"""The extract that made a cache, from what the cache says of itself; which may be anything, so it
is checked."""

from __future__ import annotations

from typing import Any

from cache import CacheError, Manifest
from cache.storage import LocationLike
from pipeline.conditions.cached import CACHED_PARTS
from pipeline.data.forms import FORM_NAMES
from pipeline.data.templates import TEMPLATE_NAMES
from pipeline.extract.settings import ExtractSettings
from pipeline.teacher.source import TEACHER_KINDS

_DTYPES = ("fp32", "bf16")


def recorded(manifest: Manifest, name: str) -> str:
    """Where the teacher or the data set was found.

    Raises:
        CacheError: the cache does not say.
    """
    value = manifest.provenance.get(name)
    if not isinstance(value, str):
        raise CacheError(
            f"the cache's manifest does not say what its {name} was; name it with --{name}"
        )
    return value


def settings_of(
    manifest: Manifest,
    cache: LocationLike,
    *,
    teacher: str | None,
    dataset: str | None,
    device: str,
    skip_non_finite: bool,
) -> ExtractSettings:
    """What was asked of the extract that made a cache.

    Args:
        manifest: the cache's.
        cache: its folder.
        teacher, dataset: where they lie now; None: where they lay then.
        device: to compute on.
        skip_non_finite: as for the extract.

    Raises:
        CacheError: the cache does not say how it was made.
    """
    settings = ExtractSettings(
        teacher=teacher or recorded(manifest, "teacher"),
        dataset=dataset or recorded(manifest, "dataset"),
        cache=cache,
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
        skip_non_finite=skip_non_finite,
        shard_tokens=manifest.shard_tokens,
        device=device,
        dtype=manifest.identity.get("compute_dtype", "?"),
    )
    known = {
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
    if unknown := [name for name, right in known.items() if not right]:
        raise CacheError(
            f"{cache}: does not say how it was made (its {unknown[0]} is missing or unknown)"
        )
    return settings


def _codec_settings(manifest: Manifest) -> dict[str, Any]:
    """What was asked of each layer's codec, as on the command line."""
    told = manifest.identity.get("codec")
    codecs = (
        {layer: told.get(str(layer)) for layer in manifest.layers} if isinstance(told, dict) else {}
    )
    fitted = {layer: codec for layer, codec in codecs.items() if isinstance(codec, dict)}
    asked = {
        layer: str(codec.get("asked", "")).partition("=")
        for layer, codec in fitted.items()
        if "asked" in codec
    }
    found: dict[str, Any] = {
        "codec": tuple(f"{layer}:{name}" for layer, name in manifest.codec_of.items()),
        "fidelity": tuple(
            f"{layer}:{measure}={value}"
            for layer, (measure, _, value) in asked.items()
            if measure != "bits"
        ),
        "bits": tuple(
            f"{layer}:{value}" for layer, (measure, _, value) in asked.items() if measure == "bits"
        ),
    }
    for codec in fitted.values():
        for name in ("calibration_tokens", "calibration_seed"):
            if type(codec.get(name)) is not int:
                raise CacheError(
                    f"the cache's manifest does not say how its codec was fitted ({name} is"
                    " missing); extract it again"
                )
            found[name] = codec[name]
    return found
