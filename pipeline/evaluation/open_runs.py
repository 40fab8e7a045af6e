"""The runs that an evaluation compares, each with the cache that it was trained from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from cache import Cache, CacheError, open_cache
from cache.storage import LocationLike, StorageLocation, storage_location
from pipeline.evaluation.settings import no_cache
from pipeline.runs.comparisons import kind_of
from pipeline.runs.folder import RunFolder
from pipeline.runs.record import RunRecord
from pipeline.runs.settings import TrainSettings

STUDENT = "student"


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """A finished run with its record and its open cache."""

    name: str
    folder: RunFolder
    record: RunRecord
    cache: Cache

    @property
    def settings(self) -> TrainSettings:
        """The run's settings, as recorded."""
        return self.record.settings

    @property
    def kind(self) -> str:
        """`student`, `control`, `layer` or `baseline`."""
        return STUDENT if self.name == STUDENT else kind_of(self.name)

    @property
    def has_random_teacher(self) -> bool:
        """Whether the teacher's weights are random."""
        return str(self.cache.identity["teacher_weights"]).startswith("random:")

    @property
    def reads(self) -> str:
        """A short description of the student's inputs."""
        layers = self.settings.layers_read
        states = (
            f"{'random teacher' if self.has_random_teacher else 'teacher'} layer"
            f" {', '.join(map(str, layers))}{' (embeddings only)' if layers == [0] else ''}"
        )
        return self.settings.conditioning.describe_input(self.settings, states)

    def same_rows(self, student: OpenRun, rows: Sequence[int]) -> list[int]:
        """Return the indices, in this run's cache, of rows of the student's cache."""
        if self.cache is student.cache:
            return list(rows)
        indices = {row_id: index for index, row_id in enumerate(self.cache.row_ids)}
        row_ids = [student.cache.row_ids[row] for row in rows]
        return [indices[row_id] for row_id in row_ids if row_id in indices]


@contextmanager
def open_runs(
    student: RunFolder, cache: LocationLike | None, random_teacher: LocationLike | None
) -> Iterator[list[OpenRun]]:
    """Open the caches of a student's run and of its comparison runs; the student is the first.

    Args:
        student: folder of its run.
        cache: current location of its cache; None: as recorded.
        random_teacher: the same for the control of that name.

    Raises:
        CacheError: a cache is incomplete or damaged.
        InputError: a run is not finished, or was trained from another cache.
    """
    student_record = student.require_finished()
    with ExitStack() as stack:
        caches: dict[str, Cache] = {}

        def open_once(location: StorageLocation, option: str) -> Cache:
            if location.address not in caches:
                caches[location.address] = stack.enter_context(_open(location, option))
            return caches[location.address]

        student_cache = open_once(
            storage_location(cache or student_record.cache_location), "--cache"
        )
        runs = []
        for name, folder in {STUDENT: student, **student.comparisons()}.items():
            record = folder.read_record()
            if record.identity.cache == student_record.identity.cache:
                run_cache = student_cache
            else:
                location = storage_location(random_teacher or record.cache_location)
                run_cache = open_once(location, "--random-teacher")
            record.require_same_cache(run_cache)
            runs.append(OpenRun(name=name, folder=folder, record=record, cache=run_cache))
        yield runs


def _open(location: StorageLocation, option: str) -> Cache:
    try:
        return open_cache(location)
    except CacheError as error:
        if location.top_level_names():
            raise
        raise no_cache(location, option) from error
