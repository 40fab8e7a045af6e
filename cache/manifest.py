"""The manifest: the description of a cache, written once before the first shard."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cache.errors import CacheError, DamagedCacheError
from cache.files import REPAIR, damage_of, files_below, inside, write_atomically
from cache.identity import Identity
from cache.names import ATTACHMENTS, EXACT, FITS, MANIFEST_NAME
from cache.sealed_json import seal, unseal

FORMAT_VERSION = 4
_LARGEST_MANIFEST = 64 << 20
# More than any cache needs; products of these neither overflow nor exhaust the memory.
_LARGEST = {
    "hidden_size": 1 << 20,
    "vocab_size": 1 << 31,
    "end_token_id": 1 << 31,
    "shards": 1 << 22,
    "examples": 1 << 36,
}
_LARGEST_COUNT = 1 << 48
_AT_LEAST_ONE = {"hidden_size", "vocab_size"}
_MOST_LAYERS = 4096


@dataclass(frozen=True)
class AttachedFile:
    """A small file stored with the cache, such as a tokenizer's; named relative to the cache."""

    name: str
    bytes: int
    checksum: str


@dataclass(frozen=True)
class Manifest:
    """The description of a cache.

    Attributes:
        format: `zarr` or `hdf5`.
        layers: teacher layers in the order of `--layers`, as indices into HF `hidden_states`.
        codecs: codec name of each layer.
        hidden_size: width of the hidden states, `d_teacher`.
        vocab_size: size of the teacher's vocabulary.
        end_token_id: the token that ends an answer.
        shards, examples, tokens: planned numbers; the cache is complete when all shards are
            published. The journal lists examples left out because their states are not finite.
        shard_tokens: the target size of a shard in tokens.
        identity: everything that the numbers depend on.
        provenance: recorded, not compared: locations of teacher and data set, library versions,
            rows left out.
        attachments: the files under `attachments/`.
    """

    format: str
    layers: tuple[int, ...]
    codecs: tuple[str, ...]
    hidden_size: int
    vocab_size: int
    end_token_id: int
    shards: int
    examples: int
    tokens: int
    shard_tokens: int
    identity: Identity
    provenance: dict[str, Any]
    attachments: tuple[AttachedFile, ...]

    @property
    def codec_of(self) -> dict[int, str]:
        """Name of each layer's codec."""
        return dict(zip(self.layers, self.codecs, strict=True))

    @property
    def codec(self) -> str:
        """The codec's name; each layer's if they differ, as on the command line."""
        if len(set(self.codecs)) == 1:
            return self.codecs[0]
        return ",".join(f"{layer}:{codec}" for layer, codec in self.codec_of.items())

    @property
    def codec_identities(self) -> dict[str, Any]:
        """Identity of each layer's codec, by layer name."""
        identities = self.identity.get("codec")
        return identities if isinstance(identities, dict) else {}

    @property
    def fits(self) -> dict[int, str]:
        """SHA-256 of the codec fit of each layer that has one, from the identity."""
        fits = {
            layer: self.codec_identities.get(str(layer))
            for layer, name in self.codec_of.items()
            if name != EXACT
        }
        return {
            layer: str(fit.get("fit")) if isinstance(fit, dict) else ""
            for layer, fit in fits.items()
        }

    @property
    def fit_bytes(self) -> int:
        """Size of the codec fits."""
        return sum(
            attached.bytes
            for attached in self.attachments
            if attached.name.startswith(f"{ATTACHMENTS}/{FITS}/")
        )

    def as_json(self) -> dict[str, Any]:
        """Return the content of the manifest's file."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {"kind": "llm-modules cache", "version": FORMAT_VERSION, **content}

    def write(self, root: Path) -> None:
        """Write the manifest atomically, which makes the folder a cache."""
        write_atomically(root / MANIFEST_NAME, seal(self.as_json(), indented=True))

    def damaged_attachments(self, root: Path) -> dict[str, str]:
        """Return the damage of attached files by name; unlisted files count as damage."""
        listed = {attached.name for attached in self.attachments}
        checked = {a.name: damage_of(root, a.name, a.bytes, a.checksum) for a in self.attachments}
        present = (
            path.relative_to(root).as_posix() for path in files_below(inside(root, ATTACHMENTS))
        )
        damaged = {name: damage for name, damage in checked.items() if damage}
        return damaged | {
            name: "was not attached when the cache was begun"
            for name in present
            if name not in listed | {ATTACHMENTS}
        }

    def check_attachments(self, root: Path) -> None:
        """Refuse changed attachments.

        Raises:
            DamagedCacheError: a file is missing, has changed, or was added.
        """
        for name, damage in self.damaged_attachments(root).items():
            raise DamagedCacheError(f"{root / name}: {damage}; {REPAIR}")


def read_manifest(root: Path) -> Manifest:
    """Read and check a cache's manifest.

    Raises:
        CacheError: there is no cache, it has another version, or its manifest is damaged.
    """
    path = root / MANIFEST_NAME
    if not root.is_dir():
        raise CacheError(f"{root}: no such folder; make a cache with `extract --cache {root}`")
    if not path.is_file():
        raise CacheError(
            f"{root}: not a cache (it has no {MANIFEST_NAME}); make one with `extract --cache`"
        )
    if path.stat().st_size > _LARGEST_MANIFEST:
        raise CacheError(f"{path}: far too large for a manifest; do not use this cache")
    text = inside(root, MANIFEST_NAME).read_bytes()
    try:
        content = unseal(text)
    except ValueError as error:
        _require_this_version(text, path)
        raise DamagedCacheError(f"{path}: damaged or not a manifest ({error}); {REPAIR}") from error
    return parse_manifest(content, path)


def parse_manifest(content: dict[str, Any], path: Path) -> Manifest:
    """Check all fields of a manifest's content, and return it; errors name `path`.

    Raises:
        CacheError: a field is missing, unknown, of another type, or out of bounds.
    """
    if (
        content.pop("kind", None) != "llm-modules cache"
        or content.pop("version", None) != FORMAT_VERSION
    ):
        raise _other_version(path)
    if unknown := content.keys() ^ {field.name for field in fields(Manifest)}:
        raise CacheError(f"{path}: field {min(unknown)!r} is missing or unknown")
    types = {
        "format": str,
        "codecs": list,
        "layers": list,
        "identity": dict,
        "provenance": dict,
        "attachments": list,
    }
    for name, value in content.items():
        kind = types.get(name, int)
        if type(value) is not kind:
            raise CacheError(f"{path}: field {name!r} is not a {kind.__name__}")
        if kind is int and not (name in _AT_LEAST_ONE) <= value <= _LARGEST.get(
            name, _LARGEST_COUNT
        ):
            raise CacheError(f"{path}: field {name!r} is out of bounds ({value})")
    layers = content["layers"]
    if not all(
        type(layer) is int and abs(layer) <= _MOST_LAYERS for layer in layers
    ) or not 0 < len(set(layers)) == len(layers):
        raise CacheError(f"{path}: field 'layers' is not a list of different layers")
    if content["shards"] > content["examples"] or content["examples"] > content["tokens"]:
        raise CacheError(f"{path}: more shards than examples, or more examples than tokens")
    if len(content["codecs"]) != len(layers) or not all(
        type(codec) is str for codec in content["codecs"]
    ):
        raise CacheError(f"{path}: field 'codecs' does not list one codec per layer")
    lists = {"layers": tuple(layers), "codecs": tuple(content["codecs"])}
    manifest = Manifest(
        **{**content, **lists, "attachments": _attachments(content["attachments"], path)}
    )
    try:
        manifest.as_json()
    except RecursionError:
        raise CacheError(f"{path}: nested too deeply") from None
    return manifest


def _require_this_version(text: bytes, path: Path) -> None:
    """Raise if the version differs, which may be sealed differently; ignore damage."""
    with contextlib.suppress(ValueError, RecursionError):
        content = json.loads(text)
        if isinstance(content, dict) and content.get("version", FORMAT_VERSION) != FORMAT_VERSION:
            raise _other_version(path)


def _other_version(path: Path) -> CacheError:
    return CacheError(
        f"{path}: not a version {FORMAT_VERSION} cache of this project; use the release that"
        " wrote it"
    )


def _attachments(items: list[Any], path: Path) -> tuple[AttachedFile, ...]:
    try:
        attachments = tuple(AttachedFile(**item) for item in items)
    except TypeError as error:
        raise CacheError(f"{path}: field 'attachments' is not a list of files ({error})") from error
    for attached in attachments:
        types = (type(attached.name), type(attached.bytes), type(attached.checksum))
        if types != (str, int, str) or not attached.name.startswith(f"{ATTACHMENTS}/"):
            raise CacheError(
                f"{path}: field 'attachments' lists {attached.name!r}, not an attached file"
            )
        inside(path.parent, attached.name)
    return attachments
