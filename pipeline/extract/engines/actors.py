"""Teachers in Ray actors, one a GPU or CPU slot, on one machine or many that share the cache's
folder.

The head hands out shards and journals them; actors write the shards themselves. An actor that dies
is replaced and what it had
in work done again. Each has two shards in hand: it reads one while the one before is coded and
written."""

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

_IN_HAND = 2
_MOST_DEATHS = 3
"""Workers that may die with the same shard in hand before it is taken for their killer."""


class ShardActor:
    """Makes shards in a process of its own."""

    def __init__(self, work: TeacherWork, threads: int | None) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._work = work
        self._worker = ShardWorker(work)
        self._teacher_is_busy = threading.Lock()

    def calibrate(self) -> dict[int, Codec]:
        """The codecs, fitted."""
        return self._worker.calibrate()

    def load(self) -> None:
        """Load the teacher."""
        with self._teacher_is_busy:
            self._worker.load()

    def make(
        self, shard: int, manifest: Manifest, codecs: dict[int, Codec], unusable: set[int]
    ) -> ShardRecord:
        """Read, code and write a shard; it exists once the head has journaled what this returns."""
        with self._teacher_is_busy:
            states = self._worker.read(shard, unusable)
        provenance = self._work.provenance() | {"batch_tokens": states.batch_tokens}
        return store_shard(
            self._work.location,
            manifest,
            shard,
            states.coded(codecs),
            states.non_finite,
            provenance,
        )


class RayEngine:
    """Hands shards to actors."""

    leads = True

    def __init__(self, plan: ExtractPlan, address: str | None, workers: int | None) -> None:
        """Join a Ray cluster, or start one on this machine.

        Raises:
            InputError: there is none at that address.
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
                " ask for fewer"
            )
        threads = None if on_gpu else max(1, slots // self._count)
        self._actor = ray.remote(ShardActor).options(
            num_gpus=1 if on_gpu else 0,
            num_cpus=0 if on_gpu else threads,
            max_concurrency=_IN_HAND,
            max_restarts=0,
        )
        self._threads = threads
        self._actors: list[Any] = []
        self._open = contextlib.ExitStack()
        self._work = ray.put(plan.work())

    def __enter__(self) -> RayEngine:
        """From now on what Ray has to say goes to stderr: stdout is for results."""
        self._open.enter_context(contextlib.redirect_stdout(sys.stderr))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the actors, and the cluster where it was started here."""
        for actor in self._actors:
            ray.kill(actor)
        if self._started:
            ray.shutdown()
        self._open.close()

    def follow(self) -> None:
        """As `Engine.follow`: there is nobody else."""

    def calibrate(self, progress: Progress) -> dict[int, Codec]:
        """As `Engine.calibrate`."""
        progress.stage("calibration sample")
        codecs: dict[int, Codec] = self._answer(self._new_actor().calibrate.remote())
        return codecs

    def load(self) -> None:
        """As `Engine.load`, in one actor: what is wrong with the teacher is so known before the
        cache is begun."""
        actor = self._actors[0] if self._actors else self._new_actor()
        try:
            self._answer(actor.load.remote())
        except ActorDiedError:
            self._actors.remove(actor)  # why they die, the first shard will tell

    def make_shards(
        self,
        fitted: FittedPlan,
        writer: CacheWriter,
        progress: Progress,
    ) -> None:
        """As `Engine.make_shards`."""
        queue, common = (
            ShardQueue(fitted.plan, writer.published),
            (writer.manifest, ray.put(fitted.codecs)),
        )
        deaths: Counter[int] = Counter()
        in_hand: dict[Any, tuple[Any, int]] = {}
        while len(self._actors) < min(self._count, len(queue)):
            self._new_actor()
        while len(queue):
            for actor in self._actors * _IN_HAND:
                if (
                    sum(each is actor for each, _ in in_hand.values()) < _IN_HAND
                    and (shard := queue.take()) is not None
                ):
                    in_hand[actor.make.remote(shard, *common, queue.unusable)] = actor, shard
            (answered,), _ = ray.wait(list(in_hand), num_returns=1)
            actor, shard = in_hand.pop(answered)
            try:
                record = self._answer(answered)
            except ActorDiedError:
                deaths[shard] += 1
                if deaths[shard] == _MOST_DEATHS:
                    raise RunError(
                        f"shard {shard}: {_MOST_DEATHS} workers died while they made it; is their"
                        " memory too small?"
                    ) from None
                queue.give_back(shard)
                if actor in self._actors:
                    self._actors.remove(actor)
                    self._new_actor()
                continue
            writer.record(record)
            queue.published(shard)
            report_shard(progress, record)

    def _new_actor(self) -> Any:
        self._actors.append(self._actor.remote(self._work, self._threads))
        return self._actors[-1]

    def _answer(self, reference: Any) -> Any:
        """What an actor returns; what it raises as if it had been raised here."""
        try:
            return ray.get(reference)
        except RayTaskError as error:
            raise error.cause from error
