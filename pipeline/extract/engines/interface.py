"""The interface of all engines."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from cache import CacheWriter
from cache.codecs import Codec
from pipeline.extract.plan import FittedPlan
from pipeline.progress import Progress


class Engine(Protocol):
    """Runs the teacher over shards.

    All engines write the same cache, bit for bit, on devices of one kind.
    """

    @property
    def leads(self) -> bool:
        """Whether this process is the coordinator; the others `follow`."""
        ...

    def follow(self) -> None:
        """Compute shards that the coordinator assigns until it ends the run."""
        ...

    def calibrate(self, progress: Progress) -> dict[int, Codec]:
        """Return the codecs, fitted to a sample of the data set.

        Raises:
            InputError: the teacher's weights cannot be loaded, or no step meets a requirement.
            RunError: no example of the sample has finite states.
        """
        ...

    def load(self) -> None:
        """Load the teacher before the cache is begun and the time is measured.

        Raises:
            InputError: its weights cannot be loaded.
        """
        ...

    def make_shards(self, fitted: FittedPlan, writer: CacheWriter, progress: Progress) -> None:
        """Compute and publish all missing shards.

        Args:
            fitted: the plan with its codecs.
            writer: of the cache.
            progress: counts tokens, with the figures `shards`, `bytes` (published) and
                `seconds_waited` (teacher idle until the previous shard is written).

        Raises:
            InputError: the teacher's weights cannot be loaded.
            OSError: a shard cannot be written.
            RunError: the teacher's states are not finite, or no worker stays alive.
        """
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
