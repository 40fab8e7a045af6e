"""The extract that made a cache, planned again so that its numbers can be reproduced."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch

from cache.codec_fits import read_codecs
from cache.errors import DamagedCacheError
from cache.identity import require_same_identity
from cache.upkeep.repair import CacheRepairer
from pipeline.device import choose_device, choose_dtype
from pipeline.extract.calibration import calibrate, needs_lm_head
from pipeline.extract.plan import ExtractPlan, FittedPlan
from pipeline.extract.prepare import prepare
from pipeline.extract.settings import ExtractSettings
from pipeline.teacher.load import load_teacher
from pipeline.teacher.model import Teacher

_MOST_THREADS = 1024


class OriginalExtract:
    """The plan, teacher and codecs of the extract that made a cache.

    Attributes:
        plan: the same examples in the same shards.
    """

    def __init__(self, repairer: CacheRepairer, settings: ExtractSettings) -> None:
        """Plan the extract, with the recorded batch size.

        Raises:
            CacheError: the teacher or the data set is another one.
            InputError: the teacher or the data set is missing.
        """
        self._repairer = repairer
        batch_tokens = recorded_count(self.provenance(), "batch_tokens")
        self.plan: ExtractPlan = prepare(replace(settings, batch_tokens=batch_tokens))
        cached = repairer.manifest.identity
        # Codecs are compared when they are fitted.
        planned = self.plan.manifest.identity | {"codec": cached.get("codec")}
        fix = "name the same teacher and data set with --teacher and --dataset"
        require_same_identity(repairer.location.address, cached, planned, fix)

    @functools.cached_property
    def teacher(self) -> Teacher:
        """The teacher, loaded on first use."""
        settings = self.plan.settings
        device = choose_device(settings.device)
        return load_teacher(
            self.plan.source,
            self.plan.manifest.layers,
            device,
            choose_dtype(settings.dtype, device),
            with_lm_head=needs_lm_head(self.plan.requirements),
        )

    def fitted_plan(self) -> FittedPlan:
        """Return the plan with the cache's codecs, fitted again if their fits are lost.

        Raises:
            CacheError: the new fits differ from the lost ones.
        """
        repairer = self._repairer
        try:
            codecs = read_codecs(repairer.root, repairer.manifest)
        except DamagedCacheError:
            self.use_recorded_threads(self.provenance())
            codecs = calibrate(self.plan.work(), self.teacher)
        fitted = self.plan.fitted(codecs)
        require_same_identity(
            repairer.root,
            repairer.manifest.identity,
            fitted.manifest.identity,
            "its codecs cannot be fitted again to the same numbers here; restore attachments/codecs"
            " from a copy, or repeat the `cache convert` that made it",
        )
        return fitted

    def provenance(self, shard: int | None = None) -> dict[str, Any]:
        """Return how a shard was computed; if that is lost, how another one or the cache was."""
        records = self._repairer.records
        candidates = [records[shard]] if shard in records else list(records.values())
        of_cache = self._repairer.manifest.provenance.get("shards")
        default = of_cache if isinstance(of_cache, dict) else {}
        return next((record.provenance for record in candidates if record.provenance), default)

    def use_recorded_threads(self, provenance: dict[str, Any]) -> None:
        """Compute with the recorded number of threads, on which the last bits of sums depend."""
        threads = recorded_count(provenance, "threads")
        if threads is not None and choose_device(self.plan.settings.device).type == "cpu":
            torch.set_num_threads(min(threads, _MOST_THREADS))


def recorded_count(provenance: dict[str, Any], name: str) -> int | None:
    """Return a positive number from a shard's provenance; None if there is none."""
    value = provenance.get(name)
    return value if type(value) is int and value > 0 else None
