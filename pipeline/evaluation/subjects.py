"""What an evaluation compares: a finished run and its comparison runs, each with the cache that it
learned from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from cache import Cache, CacheError, open_cache
from cache.storage import Place, Where, place_of
from pipeline.evaluation.settings import no_cache
from pipeline.runs.comparisons import describe, kind_of
from pipeline.runs.folder import RunFolder
from pipeline.runs.record import require_same_cache, trained_from
from pipeline.runs.rows import rows_of as split_of
from pipeline.runs.settings import TrainSettings

STUDENT = "student"


@dataclass(frozen=True)
class Subject:
    """One of the runs that are compared."""

    name: str
    folder: RunFolder
    record: dict[str, Any]
    settings: TrainSettings
    cache: Cache

    @property
    def kind(self) -> str:
        """`student`, `control`, `layer` or `baseline`."""
        return STUDENT if self.name == STUDENT else kind_of(self.name)

    def described(self) -> dict[str, Any]:
        """What the results say of it, its measurements aside."""
        result, layers = self.record["result"], self.settings.layers_read
        whose = (
            "random teacher's"
            if str(self.cache.identity["teacher_weights"]).startswith("random:")
            else "teacher"
        )
        named = f"{whose} layer {', '.join(map(str, layers))}" + (
            " (embeddings only)" if layers == [0] else ""
        )
        return {
            "name": self.name,
            "kind": self.kind,
            "about": describe(self.name),
            "reads": self.settings.conditioning.describe_input(named),
            "condition": self.settings.condition,
            "layers": layers,
            "leaks": self.record["leaks"],
            **{
                field: result[field]
                for field in ("steps", "tokens", "parameters", "seconds", "peak_memory")
            },
        }


@contextmanager
def opened_subjects(
    run: RunFolder, cache: Where | None, random_teacher: Where | None
) -> Iterator[list[Subject]]:
    """The student first, then its comparison runs, in the order in which they are told of.

    Args:
        run: the student's.
        cache: the student's, where that has moved.
        random_teacher: that of the control of this name, where that has moved.

    Raises:
        CacheError: a cache is not whole, or damaged.
        InputError: a run is not finished, or a cache is not the one that it was trained from.
    """
    run.require_finished()
    with ExitStack() as stack:
        found: dict[str, Cache] = {}

        def open_once(place: Place, option: str) -> Cache:
            if place.address not in found:
                found[place.address] = stack.enter_context(_opened(place, option))
            return found[place.address]

        own = open_once(place_of(cache or trained_from(run)), "--cache")
        subjects = []
        for name, folder in {STUDENT: run, **run.comparisons()}.items():
            record = folder.read_record()
            is_same = record["identity"]["cache"] == run.read_record()["identity"]["cache"]
            read = (
                own
                if is_same
                else open_once(place_of(random_teacher or trained_from(folder)), "--random-teacher")
            )
            require_same_cache(read, record)
            subjects.append(Subject(name, folder, record, folder.settings(), read))
        yield subjects


def rows_of(student: Subject) -> tuple[list[int], list[int]]:
    """Indices in its cache of the rows that it was trained on, and of those held out."""
    return split_of(student.cache, student.settings)


def rows_in(subject: Subject, student: Subject, rows: Sequence[int]) -> list[int]:
    """The indices, in the cache of a subject, of rows of the student's."""
    if subject.cache is student.cache:
        return list(rows)
    places = {row_id: index for index, row_id in enumerate(subject.cache.row_ids)}
    return [places[row_id] for index in rows if (row_id := student.cache.row_ids[index]) in places]


def _opened(place: Place, option: str) -> Cache:
    try:
        return open_cache(place)
    except CacheError as error:
        if place.entries():
            raise
        raise no_cache(place, option) from error
