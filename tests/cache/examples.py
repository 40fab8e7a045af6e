"""Random cached examples and manifests for tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ml_dtypes
import numpy as np

from cache import Example, Manifest, write_cache
from cache.codecs import Codec
from cache.codecs.bf16 import Bf16
from cache.codecs.fit_file import codec_identity, write_fits
from cache.codecs.int8 import Int8
from cache.codecs.klt import Klt
from cache.sealed_json import seal, unseal
from cache.shard.content import ShardContent, shard_of_examples
from cache.storage import LocationLike, storage_location

LocationT = TypeVar("LocationT", bound=LocationLike)


def make_examples(
    lengths: Sequence[int], *, hidden_size: int = 8, layers: Sequence[int] = (-1, 0), seed: int = 0
) -> list[Example]:
    rng = np.random.default_rng(seed)
    return [
        Example(
            f"row-{seed}-{index}-é",
            rng.integers(0, 1000, length).astype(np.int32),
            rng.random(length) < 0.5,
            {
                layer: rng.normal(size=(length, hidden_size)).astype(ml_dtypes.bfloat16)
                for layer in layers
            },
        )
        for index, length in enumerate(lengths)
    ]


def make_codecs(
    shards: Sequence[Sequence[Example]], name: str | Mapping[int, str] = "bf16"
) -> dict[int, Codec]:
    """Return a codec per layer, fitted to all states; `name` is the name for all or each layer."""
    codecs: dict[int, Codec] = {}
    for layer in shards[0][0].hidden_states:
        states = np.concatenate(
            [example.hidden_states[layer] for shard in shards for example in shard]
        )
        fitted = {
            "bf16": lambda _: Bf16(),
            "int8": lambda x: Int8.fit(x, {}),
            "klt": lambda x: Klt.fit(x, {}).with_step(0.2, x),
        }
        codecs[layer] = fitted[name if isinstance(name, str) else name[layer]](states)
    return codecs


def make_content(
    examples: Sequence[Example], codecs: dict[int, Codec] | None = None
) -> ShardContent:
    """Return the content of a shard of whole examples, exact unless codecs are given."""
    exact = {layer: Bf16() for example in examples for layer in example.hidden_states}
    return shard_of_examples(examples, codecs or exact)


def make_manifest(
    shards: Sequence[Sequence[Example]],
    container: str = "zarr",
    codecs: dict[int, Codec] | None = None,
    **identity: object,
) -> Manifest:
    codecs = codecs or make_codecs(shards)
    first = shards[0][0]
    return Manifest(
        format=container,
        layers=tuple(first.hidden_states),
        codecs=tuple(codecs[layer].name for layer in first.hidden_states),
        hidden_size=next(iter(first.hidden_states.values())).shape[1],
        vocab_size=1000,
        end_token_id=1,
        shards=len(shards),
        examples=sum(len(shard) for shard in shards),
        tokens=sum(len(example) for shard in shards for example in shard),
        shard_tokens=100,
        identity={"teacher_weights": "sha256:1", "codec": codec_identity(codecs), **identity},
        provenance={},
        attachments=(),
    )


def make_attachments(root: Path, codecs: dict[int, Codec] | None = None) -> Path:
    attachments = root.parent / f"{root.name}-attachments"
    attachments.mkdir(parents=True, exist_ok=True)
    (attachments / "note.txt").write_text("hello")
    write_fits(attachments, codecs or {})
    return attachments


def make_cache(
    where: LocationT,
    shards: Sequence[Sequence[Example]],
    container: str = "zarr",
    publish: Sequence[int] | None = None,
    codec: str | Mapping[int, str] = "bf16",
) -> LocationT:
    """Publish the missing shards, or only those of them in `publish`."""
    codecs = make_codecs(shards, codec)
    attachments = make_attachments(storage_location(where).folder, codecs)
    with write_cache(where, make_manifest(shards, container, codecs), attachments) as writer:
        for shard in writer.missing_shards():
            if publish is None or shard in publish:
                writer.publish(shard, make_content(shards[shard], codecs))
    return where


def make_shards(lengths: Sequence[Sequence[int]], **options: Any) -> list[list[Example]]:
    return [make_examples(shard, seed=seed, **options) for seed, shard in enumerate(lengths)]


def rewrite_manifest(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and its copy in the journal, with valid seals."""
    content = unseal((root / "manifest.json").read_bytes())
    change(content)
    (root / "manifest.json").write_bytes(seal(content, indented=True))
    lines = (root / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (root / "journal.jsonl").write_bytes(b"".join([seal(content) + b"\n", *lines[1:]]))


def rewrite_record(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the first shard's record in the journal, with a valid seal."""
    lines = (root / "journal.jsonl").read_bytes().splitlines(keepends=True)
    content = unseal(lines[1][:-1])
    change(content)
    (root / "journal.jsonl").write_bytes(b"".join([lines[0], seal(content) + b"\n", *lines[2:]]))


def same_example(left: Example, right: Example) -> bool:
    return (
        left.row_id == right.row_id
        and np.array_equal(left.input_ids, right.input_ids)
        and np.array_equal(left.loss_mask, right.loss_mask)
        and list(left.hidden_states) == list(right.hidden_states)
        and all(
            np.array_equal(
                left.hidden_states[layer].view(np.uint16),
                right.hidden_states[layer].view(np.uint16),
            )
            for layer in left.hidden_states
        )
    )
