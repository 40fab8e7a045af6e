"""Extracting again what a cache has lost, and nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cache import CacheError, Manifest, open_cache
from cache.errors import OtherContentError
from cache.identity import require_same_identity
from cache.mend import CacheMender, mend_cache
from cache.space import require_room
from pipeline.device import choose_device, choose_dtype
from pipeline.errors import RunError
from pipeline.extract.prepare import PreparedExtract, prepare
from pipeline.extract.reading import read_hidden_states
from pipeline.extract.settings import ExtractSettings
from pipeline.teacher.model import load_teacher


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
        found: what was wrong, one phrase each.
        shards: those extracted again.
        tokens: of those shards.
        same_content: whether each of them holds what the lost one held; shards whose journal line was lost, too, are trusted.
        content_digest: of the whole cache, now.
    """

    cache: str
    found: list[str]
    shards: list[int]
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
        same = True
        if mender.shards or mender.attachments_damaged:
            prepared = prepare(_settings_of(mender.manifest, settings))
            mend = "name the same teacher and data set with --teacher and --dataset"
            require_same_identity(settings.cache, mender.manifest.identity, prepared.manifest.identity, mend)
            if mender.attachments_damaged:
                with tempfile.TemporaryDirectory() as attachments:
                    prepared.tokenizer.save_pretrained(Path(attachments) / "tokenizer")
                    mender.put_back_attachments(Path(attachments))
            if mender.shards:
                same = _extract_again(mender, prepared, settings, extracted)
        with open_cache(settings.cache) as whole:
            content_digest = whole.content_digest
        return RepairResult(
            cache=str(settings.cache),
            found=[damage.what for damage in mender.found.damage] + [f"shard {s}: missing" for s in mender.found.missing_shards],
            shards=mender.shards,
            tokens=sum(mender.records[shard].tokens for shard in mender.shards),
            same_content=same,
            content_digest=content_digest,
        )


def _extract_again(
    mender: CacheMender, prepared: PreparedExtract, settings: RepairSettings, extracted: Callable[[int, int], None]
) -> bool:
    manifest = mender.manifest
    require_room(settings.cache, prepared.shard_sizes(mender.shards), sum(len(prepared.shards[s]) for s in mender.shards))
    device = choose_device(prepared.settings.device)
    teacher = load_teacher(prepared.source, manifest.layers, device, choose_dtype(prepared.settings.dtype, device))
    total = sum(len(example) for shard in mender.shards for example in prepared.examples_of(shard))
    same = True
    for shard in mender.shards:
        lost = mender.records.get(shard)
        made = lost.provenance if lost else {}
        batch_tokens = int(made.get("batch_tokens", prepared.settings.batch_tokens))
        if device.type == "cpu" and "threads" in made:
            torch.set_num_threads(int(made["threads"]))
        states = read_hidden_states(
            teacher,
            prepared.examples_of(shard),
            batch_tokens,
            skip_non_finite=settings.skip_non_finite or bool(lost and lost.non_finite),
            progress=lambda tokens: extracted(tokens, total),
        )
        now = prepared.provenance_of_shards() | {"batch_tokens": batch_tokens}
        try:
            same &= mender.replace(
                shard,
                states.examples,
                non_finite=states.non_finite,
                provenance=now,
                other_content=settings.allow_other_numbers,
            )
        except OtherContentError as error:
            raise _other_numbers(settings.cache, error, made, now) from error
    return same


def _other_numbers(root: Path, error: OtherContentError, made: dict[str, Any], now: dict[str, Any]) -> RunError:
    differing = [f"{name} {made.get(name)!r} then, {value!r} now" for name, value in now.items() if made.get(name) != value]
    return RunError(
        f"{root}: {error}; the last bits depend on the machine ({'; '.join(differing) or 'nothing known differs'}): "
        "repair where the cache was made, or accept them with --allow-other-numbers"
    )


def _settings_of(manifest: Manifest, repair: RepairSettings) -> ExtractSettings:
    """The extract that made a cache."""
    identity, origin = manifest.identity, manifest.provenance
    if missing := {"teacher", "dataset", "dataset_config", "split", "form", "skip_bad_rows"} - origin.keys():
        raise CacheError(f"{repair.cache}: does not say how it was made ({min(missing)} is not recorded)")
    return ExtractSettings(
        teacher=repair.teacher or origin["teacher"],
        dataset=repair.dataset or origin["dataset"],
        cache=repair.cache,
        format=manifest.format,
        codec=manifest.codec,
        layers=manifest.layers,
        dataset_config=origin["dataset_config"],
        split=origin["split"],
        form=origin["form"],
        template=identity["template"],
        loss_on=identity["loss_on"],
        max_tokens=identity["max_tokens"],
        limit=identity["limit"],
        skip_bad_rows=origin["skip_bad_rows"],
        shard_tokens=manifest.shard_tokens,
        device=repair.device,
        dtype=identity["compute_dtype"],
    )
