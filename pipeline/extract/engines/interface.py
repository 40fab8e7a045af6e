"""What an engine does for an extract, whoever runs the teacher."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from cache import CacheWriter
from cache.codecs import Codec
from pipeline.extract.plan import FittedPlan
from pipeline.progress import Progress


class Engine(Protocol):
    """Runs the teacher over shards. All engines give the same cache, bit for bit, on devices of one
    kind."""

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes the journal; the others only `follow`."""
        ...

    def follow(self) -> None:
        """Do what the process that leads says, until all is done."""
        ...

    def calibrate(self, progress: Progress) -> dict[int, Codec]:
        """Fit the codecs to the sample of the data set.

        Raises:
            InputError: the teacher's weights cannot be loaded, or no step gives what is asked.
            RunError: no example of the sample has finite states.
        """
        ...

    def load(self) -> None:
        """Load the teacher where it runs in this process, before the cache is begun and the clock
        runs.

        Raises:
            InputError: its weights cannot be loaded.
        """
        ...

    def make_shards(
        self,
        fitted: FittedPlan,
        writer: CacheWriter,
        progress: Progress,
    ) -> None:
        """Make and publish all shards that the writer is missing.

        Args:
            fitted: the plan with its codecs.
            writer: of the cache.
            progress: counts tokens, with the figures `shards`, `bytes` (published) and
                `seconds_waited` (teacher idle until the previous shard is written).

        Raises:
            InputError: the teacher's weights cannot be loaded.
            OSError: a shard cannot be written.
            RunError: the teacher gives values that are not finite, or no worker stays alive.
        """
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
