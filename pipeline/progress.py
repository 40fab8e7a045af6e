"""Progress reports: a bar on a terminal, occasional plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.text import Text

SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Receives the progress of a task; this base class shows nothing."""

    def stage(self, name: str, total: int = 0) -> None:
        """Begin a stage of `total` units; 0 if their number is unknown."""

    def advance(self, amount: int = 1, **figures: float) -> None:
        """Add finished units to the current stage; `figures` are other measurements."""


NO_PROGRESS = Progress()


class BarProgress(Progress):
    """Shows each stage as a task of a bar, which appears with the first stage.

    Args:
        bar: shows the stages.
        fields: initial values of the fields that the bar's columns show.
    """

    def __init__(self, bar: Bar, **fields: Any) -> None:
        self._bar, self._fields = bar, fields
        self._task: TaskID | None = None

    def stage(self, name: str, total: int = 0) -> None:
        """Replace the previous stage."""
        self._bar.start()
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(name, total=total or None, **self._fields)

    def advance(self, amount: int = 1, **figures: float) -> None:
        """Move the bar on."""
        self.update(amount)

    def update(self, amount: int, **fields: Any) -> None:
        """Move the bar on, and set fields that its columns show."""
        if self._task is not None:
            self._bar.update(self._task, advance=amount, **fields)


def count_columns(before_stage: str = "") -> tuple[ProgressColumn, ...]:
    """Return the columns of a bar that counts: stage, bar, M of N, remaining time."""
    return (
        TextColumn(f"{before_stage}{{task.description}}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )


@contextmanager
def shown_progress(*columns: ProgressColumn) -> Iterator[Progress]:
    """Show stages in a bar of these columns until the block ends."""
    bar = progress_bar(*columns)
    try:
        yield BarProgress(bar)
    finally:
        bar.stop()


def progress_bar(*columns: ProgressColumn) -> Bar:
    """Return a bar that disappears when it ends; plain lines where stderr is no terminal."""
    if sys.stderr.isatty():
        return Bar(*columns, console=Console(stderr=True), transient=True)
    return _Lines(*columns)


def print_line(line: str) -> None:
    """Write a line to stderr, ignoring a full or closed log."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


class TokenCount(ProgressColumn):
    """Finished tokens, with their total and tokens per second where known."""

    def render(self, task: Task) -> Text:
        """Return text such as `4,096/184,500 tokens  141/s`."""
        total = "" if task.total is None else f"/{task.total:,.0f}"
        speed = "" if task.speed is None else f"  {task.speed:,.0f}/s"
        return Text(f"{task.completed:,.0f}{total} tokens{speed}")


class _Lines(Bar):
    """Writes the columns as plain lines, one per interval; short runs write nothing."""

    def __init__(self, *columns: ProgressColumn) -> None:
        super().__init__(*columns, disable=True)
        self._last_line = time.monotonic()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Update the task, then write a line if one is due."""
        super().update(task_id, **changes)
        self._write(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Advance the task, then write a line if one is due."""
        super().advance(task_id, advance)
        self._write(task_id)

    def _write(self, task_id: TaskID) -> None:
        now = time.monotonic()
        if now - self._last_line < SECONDS_BETWEEN_LINES:
            return
        task = next(task for task in self.tasks if task.id == task_id)
        if not task.visible:
            return
        self._last_line = now
        cells = [column(task) for column in self.columns if isinstance(column, ProgressColumn)]
        texts = [cell.plain for cell in cells if isinstance(cell, Text)]  # without the bar
        print_line(" ".join(" ".join(texts).split()))
