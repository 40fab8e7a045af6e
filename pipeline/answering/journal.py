"""The journal of an unfinished file of answers: one sealed line per batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cache.durable_lines import DurableLines
from cache.files import write_atomically
from cache.identity import Identity, differences
from cache.sealed_json import seal, unseal
from pipeline.errors import InputError
from pipeline.generation.answers import Written


class AnswerJournal:
    """The answers of finished batches, in the order in which they were written.

    Attributes:
        answers: of all finished batches.
        batch_size: of the next batch; memory may have been too small for larger ones.
        seconds: spent on generation.
        resumed: number of answers that were in the journal when it was opened.
    """

    def __init__(self, path: Path, identity: Identity, batch_size: int) -> None:
        """Open the journal, or begin it.

        A last line that was written incompletely is cut off; its batch is written again.

        Args:
            path: of the journal.
            identity: of the file of answers.
            batch_size: of a new journal.

        Raises:
            InputError: it belongs to a file with another identity, or is no journal.
        """
        self.batch_size = batch_size
        self.answers: list[Written] = []
        self.seconds = 0.0
        if path.exists():
            self._read(path, identity)
        else:
            write_atomically(path, seal({"identity": identity}) + b"\n")
        self._lines = DurableLines(path, "the journal was removed or replaced while it was written")
        self.resumed = len(self.answers)

    def _read(self, path: Path, identity: Identity) -> None:
        content = path.read_bytes()
        try:
            first, *batches = content[: content.rfind(b"\n") + 1].splitlines()
            begun = unseal(first)["identity"]
            for line in batches:
                self._add(unseal(line))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: is damaged ({error}); delete it to start again") from error
        if phrases := differences(begun, identity):
            raise InputError(
                f"{path}: was begun with other settings ({'; '.join(phrases)}); repeat its"
                " original options, choose another --out, or delete it"
            )

    def append(self, answers: Sequence[Written], batch_size: int, seconds: float) -> None:
        """Add a batch durably.

        Args:
            answers: of the batch.
            batch_size: of the next one.
            seconds: that it took.

        Raises:
            OSError: it cannot be written; the journal is unchanged.
        """
        batch = {
            "batch_size": batch_size,
            "seconds": seconds,
            "answers": [asdict(answer) for answer in answers],
        }
        self._lines.append_line(seal(batch) + b"\n")
        self._add(batch)

    def _add(self, batch: dict[str, Any]) -> None:
        self.answers += [Written(**answer) for answer in batch["answers"]]
        self.batch_size = int(batch["batch_size"])
        self.seconds += float(batch["seconds"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.__exit__(kind, error, trace)
