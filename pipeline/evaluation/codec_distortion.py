"""Codec distortion of a cache, as measured when its codecs were fitted."""

from __future__ import annotations

from cache import Cache
from cache.codecs import EXACT
from pipeline.errors import InputError
from pipeline.evaluation.results import CodecDistortion
from pipeline.json_dataclasses import from_json


def codec_distortion(cache: Cache) -> list[CodecDistortion]:
    """Return the distortion of each layer that is not stored exactly.

    Raises:
        InputError: a fit lacks the measurements of `extract`.
    """
    return [
        _distortion(cache, layer)
        for layer, codec in cache.codecs.items()
        if codec.name != EXACT and "found" in codec.settings
    ]


def _distortion(cache: Cache, layer: int) -> CodecDistortion:
    codec = cache.codecs[layer]
    measured = {
        **codec.settings["found"],
        "layer": layer,
        "codec": codec.name,
        "asked": codec.settings.get("asked", {}).get("asked", ""),
        "tried": codec.settings.get("tried", []),
    }
    try:
        return from_json(CodecDistortion, measured)
    except ValueError as error:
        raise InputError(
            f"{cache.address}: codec fit of layer {layer}: damaged ({error}); extract again"
        ) from error
