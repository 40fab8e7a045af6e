"""The manifest: what a cache is to hold, written once when it is begun and never changed."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cache.errors import CacheError, DamagedCacheError
from cache.files import MEND, damage_of, files_below, inside, write_atomically
from cache.identity import Identity
from cache.names import ATTACHMENTS, EXACT, MANIFEST_NAME
from cache.sealed_json import seal, unseal

FORMAT_VERSION = 4
_LARGEST_MANIFEST = 64 << 20
# Far more than any cache has, and few enough that no product of them overflows or fills the memory.
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
    """A small file that travels with the cache, such as the teacher's tokenizer. `name` is relative
    to the cache."""

    name: str
    bytes: int
    checksum: str


@dataclass(frozen=True)
class Manifest:
    """What the cache holds and where the numbers come from.

    Attributes:
        format: `zarr` or `hdf5`.
        layers: teacher layers in the order they were asked for, as indices into HF `hidden_states`.
        codecs: for each of them, how its hidden states are stored.
        hidden_size: width of the hidden states, `d_teacher`.
        vocab_size: tokens of the teacher's vocabulary.
        end_token_id: the token that ends an answer.
        shards, examples, tokens: what is planned; the cache is complete when that many shards are
            published. Examples that turn out to have no finite states are left out and named in the
            journal.
        shard_tokens: the target size of a shard in tokens.
        identity: everything that the numbers depend on.
        provenance: what is recorded but not compared: where teacher and data set were found,
            library versions, rows left out.
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
        """The codec's name; where layers differ, each layer's, as the command line takes them."""
        if len(set(self.codecs)) == 1:
            return self.codecs[0]
        return ",".join(f"{layer}:{codec}" for layer, codec in self.codec_of.items())

    @property
    def codec_identities(self) -> dict[str, Any]:
        """What the identity says of each layer's codec, by layer name."""
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
        """Size of what the codecs were fitted with."""
        return sum(
            attached.bytes
            for attached in self.attachments
            if attached.name.startswith(f"{ATTACHMENTS}/codecs/")
        )

    def as_json(self) -> dict[str, Any]:
        """The manifest as it stands in its file."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {"kind": "llm-modules cache", "version": FORMAT_VERSION, **content}

    def write(self, root: Path) -> None:
        """Write the manifest atomically: from here on the folder is a cache."""
        write_atomically(root / MANIFEST_NAME, seal(self.as_json(), spread=True))

    def damaged_attachments(self, root: Path) -> dict[str, str]:
        """What is wrong with the attached files, by their names; a file that nobody attached is
        wrong, too."""
        listed = {attached.name for attached in self.attachments}
        checked = {a.name: damage_of(root, a.name, a.bytes, a.checksum) for a in self.attachments}
        held = (
            path.relative_to(root).as_posix() for path in files_below(inside(root, ATTACHMENTS))
        )
        wrong = {name: what for name, what in checked.items() if what}
        return wrong | {
            name: "was not attached when the cache was begun"
            for name in held
            if name not in listed | {ATTACHMENTS}
        }

    def check_attachments(self, root: Path) -> None:
        """Refuse attached files that are not as they were attached.

        Raises:
            DamagedCacheError: one is missing, has changed, or was added.
        """
        for name, what in self.damaged_attachments(root).items():
            raise DamagedCacheError(f"{root / name}: {what}; {MEND}")


def read_manifest(root: Path) -> Manifest:
    """Read and check a cache's manifest.

    Raises:
        CacheError: the folder holds no cache, an unknown version of one, or the manifest is
            damaged.
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
        raise DamagedCacheError(f"{path}: damaged or not a manifest ({error}); {MEND}") from error
    return parse_manifest(content, path)


def parse_manifest(content: dict[str, Any], path: Path) -> Manifest:
    """Check what a manifest says before anything is believed, or made as large as it says. `path`
    is named in errors.

    Raises:
        CacheError: a field is missing, unknown, of another type, or beyond all bounds.
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
            raise CacheError(f"{path}: field {name!r} is beyond all bounds ({value})")
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
        raise CacheError(f"{path}: field 'codecs' does not name one for each layer")
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
    """Other versions are sealed in another way: tell them from damage."""
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
                f"{path}: field 'attachments' names {attached.name!r}, which is no attached file"
            )
        inside(path.parent, attached.name)
    return attachments
