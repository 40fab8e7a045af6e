"""Extracting again what a cache has lost, and nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cache import open_cache
from cache.errors import OtherContentError
from cache.identity import require_same_identity
from cache.mend import CacheMender, mend_cache
from cache.space import require_room, room_needed
from pipeline.device import choose_device, choose_dtype
from pipeline.errors import RunError
from pipeline.extract.origin import settings_of
from pipeline.extract.prepare import PreparedExtract, prepare
from pipeline.extract.reading import read_hidden_states
from pipeline.teacher.model import load_teacher

_MOST_THREADS = 1024


@dataclass(frozen=True)
class RepairSettings:
    """One repair, as asked for on the command line; each field is the option of that name.

    Attributes:
        teacher, dataset: where they lie now; None: where they lay when the cache was made.
        skip_non_finite: as for the extract.
        allow_other_numbers: accept shards whose numbers differ from the lost ones.
    """

    cache: Path
    teacher: str | None = None
    dataset: str | None = None
    device: str = "auto"
    skip_non_finite: bool = False
    allow_other_numbers: bool = False


@dataclass(frozen=True)
class RepairResult:
    """What a repair did.

    Attributes:
        found: what was wrong, one phrase each, with the file.
        restored: shards that were whole, and whose lost lines in the journal were told from them.
        shards: those extracted again.
        unknown_shards: those of them of whose content before nothing was left to compare with.
        tokens: of the shards extracted again.
        same_content: whether each of the others holds what the lost one held.
        content_digest: of the whole cache, now.
    """

    cache: str
    found: list[str]
    restored: list[int]
    shards: list[int]
    unknown_shards: list[int]
    tokens: int
    same_content: bool
    content_digest: str


def repair(
    settings: RepairSettings,
    checked: Callable[[int], None] = lambda size: None,
    extracted: Callable[[int, int], None] = lambda tokens, total: None,
) -> RepairResult:
    """Verify a cache, and extract again the shards that are damaged or missing.

    Args:
        settings: the cache, and where teacher and data set lie.
        checked: called with the bytes just checked.
        extracted: called with the tokens just read and those to be read in all.

    Raises:
        CacheError: there is no cache, another process writes to it, or teacher or data set are not those it was made from.
        InputError: the teacher or the data set is not to be had.
        RunError: the numbers differ from the lost ones, or are not finite.
    """
    with mend_cache(settings.cache, checked) as mender:
        same: dict[int, bool | None] = {}
        if mender.shards or mender.damaged_attachments:
            prepared = _prepared_again(mender, settings)
            same = _extract_again(mender, prepared, settings, extracted)
            if mender.damaged_attachments:
                with tempfile.TemporaryDirectory() as attachments:
                    prepared.tokenizer.save_pretrained(Path(attachments) / "tokenizer")
                    mender.put_back_attachments(Path(attachments))
        mender.require_consistent()
        with open_cache(settings.cache) as whole:
            content_digest = whole.content_digest
        missing = [f"shard {shard}: missing from the journal" for shard in mender.found.missing_shards]
        return RepairResult(
            cache=str(settings.cache),
            found=[f"{damage.file}: {damage.what}" for damage in mender.found.damage] + missing,
            restored=mender.restored,
            shards=mender.shards,
            unknown_shards=[shard for shard, known in same.items() if known is None],
            tokens=sum(mender.records[shard].tokens for shard in mender.shards),
            same_content=all(known is not False for known in same.values()),
            content_digest=content_digest,
        )


def _prepared_again(mender: CacheMender, settings: RepairSettings) -> PreparedExtract:
    """The extract that made the cache, in the batches that made it."""
    manifest = mender.manifest
    asked = settings_of(
        manifest,
        settings.cache,
        teacher=settings.teacher,
        dataset=settings.dataset,
        device=settings.device,
        skip_non_finite=settings.skip_non_finite,
    )
    prepared = prepare(replace(asked, batch_tokens=_recorded(_how_made(mender, None), "batch_tokens", asked.batch_tokens)))
    mend = "name the same teacher and data set with --teacher and --dataset"
    require_same_identity(settings.cache, manifest.identity, prepared.manifest.identity, mend)
    return prepared


def _how_made(mender: CacheMender, shard: int | None) -> dict[str, Any]:
    """How a shard was made; where nothing is known of it, how any other one was, or the whole cache was begun."""
    known = [mender.records[shard]] if shard in mender.records else list(mender.records.values())
    begun = mender.manifest.provenance.get("shards")
    return next((record.provenance for record in known if record.provenance), begun if isinstance(begun, dict) else {})


def _recorded(made: dict[str, Any], name: str, otherwise: int) -> int:
    value = made.get(name)
    return value if type(value) is int and value > 0 else otherwise


def _extract_again(
    mender: CacheMender, prepared: PreparedExtract, settings: RepairSettings, extracted: Callable[[int, int], None]
) -> dict[int, bool | None]:
    """Make the lost shards again; tells of each whether it holds what the lost one held."""
    if not mender.shards:
        return {}
    _require_room(mender, prepared)
    device = choose_device(prepared.settings.device)
    teacher = load_teacher(prepared.source, mender.manifest.layers, device, choose_dtype(prepared.settings.dtype, device))
    total = sum(len(example) for shard in mender.shards for example in prepared.examples_of(shard))
    same = {}
    for shard in mender.shards:
        made, lost = _how_made(mender, shard), mender.records.get(shard)
        batch_tokens = _recorded(made, "batch_tokens", prepared.settings.batch_tokens)
        if device.type == "cpu":
            torch.set_num_threads(min(_recorded(made, "threads", torch.get_num_threads()), _MOST_THREADS))
        states = read_hidden_states(
            teacher,
            prepared.examples_of(shard),
            batch_tokens,
            skip_non_finite=settings.skip_non_finite or bool(lost and lost.non_finite),
            progress=lambda tokens: extracted(tokens, total),
        )
        now = prepared.provenance_of_shards() | {"batch_tokens": batch_tokens}
        try:
            same[shard] = mender.replace(
                shard,
                states.examples,
                non_finite=states.non_finite,
                provenance=now,
                other_content=settings.allow_other_numbers,
            )
        except OtherContentError as error:
            raise _other_numbers(settings.cache, error, made, now) from error
    return same


def _require_room(mender: CacheMender, prepared: PreparedExtract) -> None:
    """One shard is staged at a time, and takes the place of what is there."""
    sizes = dict(zip(mender.shards, prepared.shard_sizes(mender.shards), strict=True))
    growth = sum(max(0, size - mender.bytes_of(shard)) for shard, size in sizes.items())
    examples = sum(len(prepared.shards[shard]) for shard in mender.shards)
    require_room(mender.root, room_needed([growth + max(sizes.values())], examples))


def _other_numbers(root: Path, error: OtherContentError, made: dict[str, Any], now: dict[str, Any]) -> RunError:
    differing = [f"{name} {made.get(name)!r} then, {value!r} now" for name, value in now.items() if made.get(name) != value]
    return RunError(
        f"{root}: {error}; the last bits depend on the machine ({'; '.join(differing) or 'nothing known differs'}): "
        "repair where the cache was made, or accept them with --allow-other-numbers"
    )
