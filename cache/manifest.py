"""The manifest: what a cache is to hold, written once when it is begun and never changed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cache.errors import CacheError
from cache.files import check_file, require_local, write_atomically
from cache.identity import Identity
from cache.sealed_json import seal, unseal

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1
_LARGEST_MANIFEST = 64 << 20


@dataclass(frozen=True)
class AttachedFile:
    """A small file that travels with the cache, such as the teacher's tokenizer. `name` is relative to the cache."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What the cache holds and where the numbers come from.

    Attributes:
        format: `zarr` or `hdf5`.
        codec: how hidden states are stored.
        layers: teacher layers in the order they were asked for, as indices into HF `hidden_states`.
        hidden_size: width of the hidden states, `d_teacher`.
        vocab_size: tokens of the teacher's vocabulary.
        end_token_id: the token that ends an answer.
        shards, examples, tokens: what the whole cache holds; it is complete when that many shards are published.
        shard_tokens: the target size of a shard in tokens.
        identity: everything that the numbers depend on.
        provenance: what is recorded but not compared: where teacher and data set were found, library versions, rows left out.
        attachments: the files under `attachments/`.
    """

    format: str
    codec: str
    layers: tuple[int, ...]
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

    def write(self, root: Path) -> None:
        """Write the manifest atomically: from here on the folder is a cache."""
        content = {"kind": "llm-modules cache", "version": FORMAT_VERSION, **asdict(self)}
        text = json.dumps(seal(json.loads(json.dumps(content))), indent=1, sort_keys=True)
        write_atomically(root / MANIFEST_NAME, text.encode() + b"\n")

    def check_attachments(self, root: Path) -> None:
        """Compare the attached files with their checksums.

        Raises:
            DamagedCacheError: one is missing or has changed.
        """
        for attached in self.attachments:
            check_file(root, attached.name, attached.bytes, attached.sha256)


def read_manifest(root: Path) -> Manifest:
    """Read and check a cache's manifest.

    Raises:
        CacheError: the folder holds no cache, an unknown version of one, or the manifest is damaged.
    """
    require_local(root)
    path = root / MANIFEST_NAME
    if not root.is_dir():
        raise CacheError(f"{root}: no such folder; make a cache with `extract --cache {root}`")
    if not path.is_file():
        raise CacheError(f"{root}: not a cache (it has no {MANIFEST_NAME}); make one with `extract --cache`")
    if path.stat().st_size > _LARGEST_MANIFEST:
        raise CacheError(f"{path}: far too large for a manifest; do not use this cache")
    try:
        content = unseal(path.read_bytes())
    except ValueError as error:
        raise CacheError(f"{path}: damaged or not a manifest ({error})") from error
    if content.pop("kind", None) != "llm-modules cache" or content.pop("version", None) != FORMAT_VERSION:
        raise CacheError(f"{path}: not a version {FORMAT_VERSION} cache of this project; use the release that wrote it")
    return _checked(path, content)


def _checked(path: Path, content: dict[str, Any]) -> Manifest:
    counts = ("hidden_size", "vocab_size", "end_token_id", "shards", "examples", "tokens", "shard_tokens")
    types: dict[str, type] = {"format": str, "codec": str, "layers": list, **dict.fromkeys(counts, int)}
    types |= {"identity": dict, "provenance": dict, "attachments": list}
    for name, kind in types.items():
        value = content.get(name)
        if not isinstance(value, kind) or (isinstance(value, int) and (isinstance(value, bool) or value < 0)):
            raise CacheError(f"{path}: field {name!r} is missing or not a {kind.__name__}")
    if unknown := content.keys() - types.keys():
        raise CacheError(f"{path}: unknown field {min(unknown)!r}")
    if not content["layers"] or not all(type(layer) is int for layer in content["layers"]):
        raise CacheError(f"{path}: field 'layers' is not a list of whole numbers")
    try:
        attachments = tuple(AttachedFile(**item) for item in content["attachments"])
    except TypeError as error:
        raise CacheError(f"{path}: field 'attachments' is not a list of files ({error})") from error
    return Manifest(**{**content, "layers": tuple(content["layers"]), "attachments": attachments})
