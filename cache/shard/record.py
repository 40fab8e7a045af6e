"""Shard records: the journal's entries for published shards."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.sealed_json import seal

_LARGEST_SHARD_NUMBER = 1 << 22
_LARGEST_COUNT = 1 << 40
_COUNTS = ("lengths", "stored", "prefix_numbers", "prefixes")


@dataclass(frozen=True)
class ShardRecord:
    """The journal's entry for a published shard.

    Attributes:
        shard: its number, from 0.
        files: size in bytes and checksum (128-bit XXH3) by file name, relative to the cache.
        digest: SHA-256 of its arrays, the same in every container format.
        row_ids: row id of each example, in order.
        text_bytes: total size of the examples' texts.
        lengths: `[examples]` int64, tokens of each example, its prefix included.
        stored: `[segments]` int64, tokens of each segment: first the shared prefixes stored here,
            then the rest of each example.
        prefix_numbers: `[prefixes]` int64, numbers of the shared prefixes stored here.
        prefixes: `[segments]` int64, number of the prefix preceding each segment; -1 for none.
        checksums: `[segments]` uint64, 64-bit XXH3 of each segment's stored bytes; locates damage.
        state_bytes: size of each layer's stored hidden states, by layer name.
        non_finite: tokens by row id of examples left out because their states were not finite.
        provenance: how the shard was made; recorded, not compared.
    """

    shard: int
    files: dict[str, tuple[int, str]]
    digest: str
    row_ids: list[str]
    text_bytes: int
    lengths: npt.NDArray[np.int64]
    stored: npt.NDArray[np.int64]
    prefix_numbers: npt.NDArray[np.int64]
    prefixes: npt.NDArray[np.int64]
    checksums: npt.NDArray[np.uint64]
    state_bytes: dict[str, int]
    non_finite: dict[str, int] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def line(self) -> bytes:
        """Return the record as a line of the journal."""
        plain = {
            "files": {name: list(entry) for name, entry in self.files.items()},
            **{name: getattr(self, name).tolist() for name in _COUNTS},
            "checksums": self.checksums.astype(">u8").tobytes().hex(),
        }
        return seal(asdict(self) | plain) + b"\n"

    @property
    def bytes(self) -> int:
        """Size of the shard's files."""
        return sum(size for size, _ in self.files.values())

    @property
    def tokens(self) -> int:
        """Tokens of its examples, shared prefixes included."""
        return int(self.lengths.sum())

    @property
    def stored_tokens(self) -> int:
        """Tokens stored in the shard; a shared prefix counts once."""
        return int(self.stored.sum())

    @property
    def layer_bytes(self) -> dict[int, int]:
        """Size of each layer's stored hidden states."""
        return {int(layer): size for layer, size in self.state_bytes.items()}


def parse_record(content: dict[str, Any]) -> ShardRecord:
    """Check the fields of an untrusted journal line, and return its record.

    Raises:
        ValueError: a field has the wrong type, is out of range, or contradicts another.
        KeyError, TypeError, OverflowError: a field is missing or malformed.
    """
    kinds: dict[str, type] = {"shard": int, "digest": str, "row_ids": list, "text_bytes": int}
    kinds |= dict.fromkeys(("files", "non_finite", "provenance", "state_bytes"), dict)
    for name, kind in kinds.items():
        if type(content[name]) is not kind:
            raise ValueError(f"{name} is not a {kind.__name__}")
    counts = {name: np.asarray(content[name] or np.zeros(0, np.int64)) for name in _COUNTS}
    checksums = np.frombuffer(bytes.fromhex(content["checksums"]), ">u8").astype(np.uint64)
    files = {name: (size, checksum) for name, (size, checksum) in content["files"].items()}
    valid = (
        all(
            count.dtype == np.int64 and count.ndim == 1 and (np.abs(count) < _LARGEST_COUNT).all()
            for count in counts.values()
        )
        and _are_consistent(len(content["row_ids"]), len(checksums), **counts)
        and all(
            type(size) is int and 0 <= size < _LARGEST_COUNT and _is_layer(layer)
            for layer, size in content["state_bytes"].items()
        )
        and 0 <= content["shard"] <= _LARGEST_SHARD_NUMBER
        and 0 <= content["text_bytes"] < _LARGEST_COUNT
        and all(type(row_id) is str for row_id in content["row_ids"])
        and all(type(size) is int and type(checksum) is str for size, checksum in files.values())
        and all(type(tokens) is int and tokens > 0 for tokens in content["non_finite"].values())
    )
    if not valid:
        raise ValueError("not a shard record")
    strings = [*content["row_ids"], *content["non_finite"], *files]
    "".join(strings).encode()  # raises ValueError for lone surrogates
    return ShardRecord(**{**content, **counts, "files": files, "checksums": checksums})


def _are_consistent(
    examples: int,
    checksums: int,
    lengths: npt.NDArray[np.int64],
    stored: npt.NDArray[np.int64],
    prefix_numbers: npt.NDArray[np.int64],
    prefixes: npt.NDArray[np.int64],
) -> bool:
    """Return whether the counts may belong to one shard.

    A prefix only follows prefixes with smaller numbers, so chains of prefixes end.
    """
    first = len(prefix_numbers)
    return bool(
        len(lengths) == examples
        and first + examples == len(stored) == len(prefixes) == checksums
        and (lengths >= 1).all()
        and (stored >= 0).all()
        and (prefix_numbers >= 0).all()
        and (np.diff(prefix_numbers) > 0).all()
        and (prefixes >= -1).all()
        and (prefixes[:first] < prefix_numbers).all()
    )


def _is_layer(name: str) -> bool:
    digits = name.removeprefix("-")
    return len(name) <= 8 and digits.isascii() and digits.isdecimal()
