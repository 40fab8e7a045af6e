"""The fit of a layer's codec, as a file that is stored with the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from cache.codecs import EXACT, Codec, codec_of
from cache.codecs.bf16 import Bf16
from cache.errors import CacheError, DamagedCacheError
from cache.names import FITS
from cache.sealed_json import canonical_json

_KINDS = {
    "int8": {"channel_scales": ("float32", 1)},
    "klt": {
        "mean": ("float32", 1),
        "basis": ("float16", 2),
        "eigenvalues": ("float32", 1),
        "step": ("float32", 0),
        "usual": ("float32", 0),
    },
}
_VALUE_TYPES = {"int8": ("int8",), "klt": ("int8", "int16")}


def fit_name(layer: int) -> str:
    """Return the file name of a layer's fit."""
    return f"layer{layer}.safetensors"


def fit_bytes(codec: Codec) -> bytes:
    """Return the content of a fit's file, which depends on the fit alone."""
    if codec.file is not None:
        return codec.file  # another release of safetensors may write another header
    described = {
        "name": codec.name,
        "settings": dict(codec.settings),
        "value_type": codec.value_type,
    }
    return save(dict(codec.parameters), metadata={"codec": canonical_json(described).decode()})


def identity_of(codec: Codec) -> Any:
    """Return the identity of a layer's codec: its name, requirement and fit."""
    if codec.name == EXACT:
        return codec.name
    return {
        "name": codec.name,
        **codec.settings.get("asked", {}),
        "fit": hashlib.sha256(fit_bytes(codec)).hexdigest(),
    }


def codec_identity(codecs: Mapping[int, Codec]) -> dict[str, Any]:
    """Return the field `codec` of a cache's identity."""
    return {str(layer): identity_of(codec) for layer, codec in codecs.items()}


def expected_bits(codec: Codec) -> float:
    """Return the expected bits per value of a codec without a fixed rate, from its calibration."""
    return float(codec.settings.get("found", {}).get("bits_per_value", 16.0))


def write_fits(folder: Path, codecs: Mapping[int, Codec]) -> None:
    """Write the fits of all layers whose codec has one."""
    for layer, codec in codecs.items():
        if codec.name != EXACT:
            (folder / FITS).mkdir(parents=True, exist_ok=True)
            (folder / FITS / fit_name(layer)).write_bytes(fit_bytes(codec))


def read_fit(file: Path, name: str, hidden_size: int) -> Codec:
    """Return the codec of a fit.

    Raises:
        DamagedCacheError: the file is missing, or of another codec or width.
    """
    if name == EXACT:
        return Bf16()
    try:
        content = file.read_bytes()
        head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        described = json.loads(head["__metadata__"]["codec"])
        parameters = load(content)
        _require_plain(described["settings"])
        if described["name"] != name or described["value_type"] not in _VALUE_TYPES[name]:
            raise ValueError(f"of codec {described['name']!r}, not {name!r}")
        if parameters.keys() != _KINDS[name].keys():
            raise ValueError("its parameters are not those of the codec")
        for key, (kind, dimensions) in _KINDS[name].items():
            shape = (hidden_size,) * dimensions or (1,)
            if (
                parameters[key].shape != shape
                or parameters[key].dtype != kind
                or not np.isfinite(parameters[key]).all()
            ):
                raise ValueError(f"parameter {key!r} is not {kind} {list(shape)}, or not finite")
        return codec_of(name, parameters, described["settings"], described["value_type"], content)
    except CacheError:
        raise
    except Exception as error:  # arbitrary bytes fail in arbitrary ways
        raise DamagedCacheError(f"{file}: not a fit of the {name} codec ({error})") from error


def _require_plain(settings: Any) -> None:
    """Raise ValueError if settings do not have the expected types."""
    requirement, measured = settings.get("asked", {}), settings.get("found", {})
    if (
        type(requirement) is not dict
        or type(measured) is not dict
        or any(type(value) not in (int, float) for value in measured.values())
    ):
        raise ValueError("its settings have unexpected types")
