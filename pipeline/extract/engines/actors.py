"""Teachers in Ray actors, on machines that share the cache's folder.

The coordinator assigns shards and journals them; actors write the shards themselves. An actor has
at most two shards in flight: it computes one while the previous one is encoded and written. An
actor that dies is replaced, and its shards are computed again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections import Counter
from types import TracebackType
from typing import Any

import torch

from cache import CacheWriter
from cache.codecs import Codec
from cache.manifest import Manifest
from cache.shard.record import ShardRecord
from cache.shard.writer import store_shard
from pipeline.errors import InputError, RunError
from pipeline.extract.engines.queue import ShardQueue
from pipeline.extract.plan import ExtractPlan, FittedPlan
from pipeline.extract.publisher import report_shard
from pipeline.extract.work import TeacherWork
from pipeline.extract.worker import ShardWorker
from pipeline.progress import Progress

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
try:
    import ray
    from ray.exceptions import ActorDiedError, RayTaskError
except ImportError as missing:
    raise InputError(
        "--engine ray: Ray is not installed; install this project with its extra ray: pip install"
        " -c constraints.txt '.[ray]'"
    ) from missing

_IN_FLIGHT = 2
_MOST_DEATHS = 3
"""Workers that may die while they compute one shard, before the run fails."""


class ShardActor:
    """A worker in a separate process."""

    def __init__(self, work: TeacherWork, threads: int | None) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._work = work
        self._worker = ShardWorker(work)
        self._teacher_lock = threading.Lock()

    def calibrate(self) -> dict[int, Codec]:
        """Return the fitted codecs."""
        return self._worker.calibrate()

    def load(self) -> None:
        """Load the teacher."""
        with self._teacher_lock:
            self._worker.load()

    def make(
        self, shard: int, manifest: Manifest, codecs: dict[int, Codec], unusable: set[int]
    ) -> ShardRecord:
        """Compute, encode and write a shard; return the record for the coordinator to journal."""
        with self._teacher_lock:
            states = self._worker.read(shard, unusable)
        provenance = self._work.provenance() | {"batch_tokens": states.batch_tokens}
        content = states.coded(codecs)
        location, non_finite = self._work.location, states.non_finite
        return store_shard(location, manifest, shard, content, non_finite, provenance)


class RayEngine:
    """Assigns shards to actors."""

    leads = True

    def __init__(self, plan: ExtractPlan, address: str | None, workers: int | None) -> None:
        """Join a Ray cluster, or start one on this machine.

        Raises:
            InputError: there is no cluster at the address, or it has too few GPUs or CPUs.
        """
        settings = plan.settings
        self._started = not ray.is_initialized()
        try:
            ray.init(
                address=address,
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                ignore_reinit_error=True,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"--address {address}: no Ray cluster there ({error})") from error
        resources = ray.cluster_resources()
        on_gpu = settings.device != "cpu" and resources.get("GPU", 0) >= 1
        slots = int(resources.get("GPU" if on_gpu else "CPU", 1))
        self._count = workers or (slots if on_gpu else 1)
        if self._count > slots:
            raise InputError(
                f"--workers {self._count}: this cluster has {slots} {'GPUs' if on_gpu else 'CPUs'};"
                " choose fewer"
            )
        threads = None if on_gpu else max(1, slots // self._count)
        self._actor = ray.remote(ShardActor).options(
            num_gpus=1 if on_gpu else 0,
            num_cpus=0 if on_gpu else threads,
            max_concurrency=_IN_FLIGHT,
            max_restarts=0,
        )
        self._threads = threads
        self._actors: list[Any] = []
        self._open = contextlib.ExitStack()
        self._work = ray.put(plan.work())

    def __enter__(self) -> RayEngine:
        """Redirect Ray's output to stderr, as stdout is for results."""
        self._open.enter_context(contextlib.redirect_stdout(sys.stderr))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the actors, and the cluster if it was started here."""
        for actor in self._actors:
            ray.kill(actor)
        if self._started:
            ray.shutdown()
        self._open.close()

    def follow(self) -> None:
        """Do nothing: this process is the coordinator."""

    def calibrate(self, progress: Progress) -> dict[int, Codec]:
        """Return the codecs, fitted by one actor."""
        progress.stage("calibration sample")
        codecs: dict[int, Codec] = self._result(self._new_actor().calibrate.remote())
        return codecs

    def load(self) -> None:
        """Load the teacher in one actor, to report its errors before the cache is begun."""
        actor = self._actors[0] if self._actors else self._new_actor()
        try:
            self._result(actor.load.remote())
        except ActorDiedError:
            self._actors.remove(actor)  # the first shard reports why actors die

    def make_shards(self, fitted: FittedPlan, writer: CacheWriter, progress: Progress) -> None:
        """Assign shards to actors, and journal each one that is written."""
        queue = ShardQueue(fitted.plan, writer.published)
        manifest, codecs = writer.manifest, ray.put(fitted.codecs)
        deaths: Counter[int] = Counter()
        in_flight: dict[Any, tuple[Any, int]] = {}
        while len(self._actors) < min(self._count, len(queue)):
            self._new_actor()
        while len(queue):
            for actor in self._actors * _IN_FLIGHT:
                busy = sum(other is actor for other, _ in in_flight.values())
                if busy < _IN_FLIGHT and (shard := queue.take()) is not None:
                    reference = actor.make.remote(shard, manifest, codecs, queue.unusable)
                    in_flight[reference] = actor, shard
            (finished,), _ = ray.wait(list(in_flight), num_returns=1)
            actor, shard = in_flight.pop(finished)
            try:
                record = self._result(finished)
            except ActorDiedError:
                deaths[shard] += 1
                if deaths[shard] == _MOST_DEATHS:
                    raise RunError(
                        f"shard {shard}: {_MOST_DEATHS} workers died while they computed it; give"
                        " them more memory, or lower --batch-tokens"
                    ) from None
                queue.give_back(shard)
                if actor in self._actors:
                    self._actors.remove(actor)
                    self._new_actor()
                continue
            writer.record(record)
            queue.mark_published(shard)
            report_shard(progress, record)

    def _new_actor(self) -> Any:
        self._actors.append(self._actor.remote(self._work, self._threads))
        return self._actors[-1]

    def _result(self, reference: Any) -> Any:
        """Return an actor's result, or raise its error."""
        try:
            return ray.get(reference)
        except RayTaskError as error:
            raise error.cause from error
