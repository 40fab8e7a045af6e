"""Progress on stderr: bars for people, and for a pipe or a log file a plain line now and then."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TaskID
from rich.text import Text

SECONDS_BETWEEN_LINES = 30.0


def progress_bar(*columns: ProgressColumn) -> Progress:
    """A bar that leaves nothing behind when it ends; where stderr is no terminal, lines without
    colour or control codes."""
    if sys.stderr.isatty():
        return Progress(*columns, console=Console(stderr=True), transient=True)
    return _Lines(*columns)


def tell(line: str) -> None:
    """A line on stderr that is no progress."""
    with suppress(OSError):  # a log that is full or gone ends no run
        print(line, file=sys.stderr, flush=True)


class TokenCount(ProgressColumn):
    """Tokens done, of how many and how many a second where that is known."""

    def render(self, task: Task) -> Text:
        """Such as `4,096/184,500 tokens  141/s`."""
        of = "" if task.total is None else f"/{task.total:,.0f}"
        speed = "" if task.speed is None else f"  {task.speed:,.0f}/s"
        return Text(f"{task.completed:,.0f}{of} tokens{speed}")


class _Lines(Progress):
    """What a bar would show, as a line, no oftener than every so many seconds; short runs say
    nothing."""

    def __init__(self, *columns: ProgressColumn) -> None:
        super().__init__(*columns, disable=True)
        self._told = time.monotonic()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """As `Progress.update`, then a line where one is due."""
        super().update(task_id, **changes)
        self._tell(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As `Progress.advance`, then a line where one is due."""
        super().advance(task_id, advance)
        self._tell(task_id)

    def _tell(self, task_id: TaskID) -> None:
        now, task = time.monotonic(), self._tasks[task_id]
        if now - self._told < SECONDS_BETWEEN_LINES or not task.visible:
            return
        self._told = now
        texts = [column(task) for column in self.columns if isinstance(column, ProgressColumn)]
        line = " ".join(text.plain for text in texts if isinstance(text, Text))  # a bar is no text
        tell(" ".join(line.split()))
