"""The codecs of a cache, read from the fits that are stored with it."""

from __future__ import annotations

from pathlib import Path

from cache.codecs import Codec
from cache.codecs.fit_file import fit_name, identity_of, read_fit
from cache.errors import DamagedCacheError
from cache.files import REPAIR, inside
from cache.manifest import Manifest
from cache.names import ATTACHMENTS, FITS


def read_codecs(root: Path, manifest: Manifest) -> dict[int, Codec]:
    """Return the fitted codec of each layer.

    Raises:
        DamagedCacheError: a fit differs from the one in the identity.
    """
    identities, codecs = manifest.codec_identities, {}
    for layer, name in manifest.codec_of.items():
        file = inside(root, f"{ATTACHMENTS}/{FITS}/{fit_name(layer)}")
        codecs[layer] = read_fit(file, name, manifest.hidden_size)
        if identity_of(codecs[layer]) != identities.get(str(layer)):
            raise DamagedCacheError(
                f"{root}: layer {layer} has another codec than in the cache's identity; {REPAIR}"
            )
    return codecs
