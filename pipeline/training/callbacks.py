"""Report a run while it trains: metrics.jsonl, training time, and a progress bar on stderr."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

_RECORDED = (
    "loss",
    "val_loss",
    "val_perplexity",
    "grad_norm",
    "learning_rate",
    "tokens_per_second",
    "loader_wait_share",
)


class MetricsFile(TrainerCallback):
    """Appends a JSON object per log step: `step`, `epoch`, losses, speed, share of loader waits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loss: float | None = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Write a line, with the last training loss if this step only has a validation loss."""
        if not state.is_world_process_zero:
            return
        record = {name: float(value) for name, value in (logs or {}).items() if name in _RECORDED}
        self._loss = record.get("loss", self._loss)
        if "loss" not in record and "val_loss" not in record:
            return
        if self._loss is not None:
            record["loss"] = self._loss
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(
                json.dumps(
                    {"step": state.global_step, "epoch": state.epoch, **record}, allow_nan=False
                )
                + "\n"
            )


class LogWithEvaluation(TrainerCallback):
    """Logs the training loss at each evaluation and after the last step, too."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Log before an evaluation, and after the last step."""
        if control.should_evaluate or state.global_step >= state.max_steps:
            control.should_log = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Log before an evaluation."""
        control.should_log = control.should_log or control.should_evaluate


class Stopwatch(TrainerCallback, ExportableState):
    """Measures a run's training time; checkpoints store it, so interruptions do not reset it."""

    _start: float | None

    def __init__(self, seconds: float = 0.0) -> None:
        self._before, self._start = seconds, None

    @property
    def seconds(self) -> float:
        """The seconds so far."""
        return self._before + (0.0 if self._start is None else time.perf_counter() - self._start)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start."""
        self._start = time.perf_counter()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stop."""
        self._before, self._start = self.seconds, None

    def state(self) -> dict[str, Any]:
        """Return the state that checkpoints store and `Trainer` restores."""
        return {"args": {"seconds": self.seconds}, "attributes": {}}


class ProgressBar(TrainerCallback):
    """Shows optimiser steps, losses and the remaining time."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress, self._title = progress, title
        self._task: TaskID | None = None
        self._shown: dict[str, float] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Show the bar."""
        if state.is_world_process_zero:
            self._task = self._progress.add_task(
                self._title, total=state.max_steps, completed=state.global_step, figures=""
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Advance the bar."""
        if self._task is not None:
            self._progress.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Show the latest losses."""
        self._shown |= {name: logs[name] for name in ("loss", "val_loss") if logs and name in logs}
        if self._task is not None:
            figures = " ".join(f"{name} {float(value):.3f}" for name, value in self._shown.items())
            self._progress.update(self._task, figures=figures)


def progress_columns() -> tuple[Any, ...]:
    """Return the columns of a training bar."""
    return (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps {task.fields[figures]}"),
        TimeRemainingColumn(),
    )
