"""What an engine does for an extract, whoever runs the teacher."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from cache import CacheWriter
from cache.codecs import Codec
from pipeline.extract.calibrate import Step
from pipeline.extract.plan import PreparedExtract


class Progress(Protocol):
    """Told how an extract gets on."""

    def __call__(
        self, tokens: int = 0, *, shards: int = 0, size: int = 0, waited: float = 0.0
    ) -> None:
        """Args:
        tokens: just read.
        shards, size: just published, and their bytes.
        waited: seconds that the teacher has just stood still because the shard before was not
        written yet."""
        ...


def no_progress(tokens: int = 0, *, shards: int = 0, size: int = 0, waited: float = 0.0) -> None:
    """Tell nobody."""


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

    def calibrate(self, step: Step) -> dict[int, Codec]:
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
        prepared: PreparedExtract,
        codecs: dict[int, Codec],
        writer: CacheWriter,
        progress: Progress,
    ) -> None:
        """Make and publish all shards that the writer is missing.

        Args:
            prepared: the extract, with the identity that its codecs give it.
            codecs: of each layer.
            writer: of the cache.
            progress: told what has been read and published.

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
