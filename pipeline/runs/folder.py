"""The folder of a run: its files, record and metrics."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.files import write_atomically
from pipeline.errors import InputError
from pipeline.runs.comparisons import comparison_folder, display_order
from pipeline.runs.record import NewerRecordError, RunRecord
from pipeline.runs.settings import TrainSettings


@dataclass(frozen=True)
class RunFolder:
    """A run's folder.

    It contains `model/`, `checkpoints/`, `metrics.jsonl`, `run.json`, `train.yaml`, `tensorboard/`,
    `loss.png`, `comparisons/` and `evaluation/`.
    """

    root: Path

    @property
    def model(self) -> Path:
        """The best student with its tokenizer, as `save_pretrained` writes it."""
        return self.root / "model"

    @property
    def teachers_tokenizer(self) -> Path:
        """The teacher's tokenizer, if the student has its own tokens."""
        return self.model / "teacher_tokenizer"

    @property
    def checkpoints(self) -> Path:
        """Best and last checkpoint."""
        return self.root / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One JSON object per log step."""
        return self.root / "metrics.jsonl"

    @property
    def options(self) -> Path:
        """The options of the command that began the run, as a file for `--config`."""
        return self.root / "train.yaml"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.root / "tensorboard"

    @property
    def curve(self) -> Path:
        """The plot of the losses."""
        return self.root / "loss.png"

    @property
    def evaluation(self) -> Path:
        """Results and report."""
        return self.root / "evaluation"

    def comparisons(self) -> dict[str, RunFolder]:
        """Return the comparison runs by name, in display order.

        Raises:
            InputError: a comparison run is not finished.
        """
        finished = self.finished_comparisons()
        for name in self.read_record().comparisons:
            if name not in finished:
                raise InputError(
                    f"{self.root}: {name} is not finished; run the same train command again, with"
                    " --resume"
                )
        return finished

    def finished_comparisons(self) -> dict[str, RunFolder]:
        """Return the finished comparison runs by name, in display order."""
        names = sorted(self.read_record().comparisons, key=display_order)
        runs = {name: RunFolder(comparison_folder(self.root, name)) for name in names}
        return {
            name: run for name, run in runs.items() if run.exists() and run.read_record().finished
        }

    def curves(self) -> dict[str, list[dict[str, Any]]]:
        """Return the logged steps of this run and of its finished comparison runs, by name."""
        return {
            name: run.read_metrics()
            for name, run in {"student": self, **self.finished_comparisons()}.items()
        }

    def exists(self) -> bool:
        """Return whether a run was begun here."""
        return (self.root / "run.json").is_file()

    def read_record(self) -> RunRecord:
        """Return the run's record.

        Raises:
            InputError: there is no run here, or its record cannot be read.
        """
        path = self.root / "run.json"
        if (self.root / "manifest.json").is_file():
            raise InputError(
                f"{self.root}: is a cache, not a run; name the folder of `train --run`"
            )
        if not path.is_file():
            raise InputError(
                f"{self.root}: not a run (it has no run.json); train one with `train --run"
                f" {self.root}`"
            )
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(
                f"{path}: damaged ({error}); train again, into a new folder"
            ) from error
        try:
            return RunRecord.from_json(content)
        except NewerRecordError as error:
            raise InputError(f"{path}: {error}; update llm-modules") from error
        except ValueError as error:
            raise InputError(
                f"{path}: damaged ({error}); train again, into a new folder"
            ) from error

    def require_finished(self) -> RunRecord:
        """Return the record of a finished run.

        Raises:
            InputError: there is no run here, or it is not finished.
        """
        record = self.read_record()
        if not record.finished:
            raise InputError(
                f"{self.root}: not finished; continue it: `train --config {self.options} --resume`,"
                " from the folder in which it was begun"
            )
        return record

    def settings(self) -> TrainSettings:
        """Return the run's settings.

        Raises:
            InputError: there is no run here, or its record cannot be read.
        """
        return self.read_record().settings

    def write_record(self, record: RunRecord) -> None:
        """Replace run.json, atomically."""
        content = json.dumps(record.to_json(), indent=1, allow_nan=False)
        write_atomically(self.root / "run.json", content.encode() + b"\n")

    def write_options(self, options: str) -> None:
        """Write the options that repeat the run; nothing if it was not begun by the command."""
        if options:
            write_atomically(self.options, options.encode())

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the logged steps, without a last line that a killed run did not finish."""
        records = []
        for line in self.metrics.read_text().splitlines() if self.metrics.is_file() else []:
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def continue_from(self, checkpoint: Path | None) -> None:
        """Prepare to continue from a checkpoint; None: from the start.

        Removes later metrics, and updates the path of the best checkpoint if the run was moved.

        Raises:
            InputError: the best checkpoint is missing.
        """
        step = 0 if checkpoint is None else step_of(checkpoint)
        kept = [json.dumps(record) for record in self.read_metrics() if record["step"] <= step]
        write_atomically(self.metrics, "".join(line + "\n" for line in kept).encode())
        if checkpoint is None:
            return
        path = checkpoint / "trainer_state.json"
        state = json.loads(path.read_text(encoding="utf-8"))
        if state["best_model_checkpoint"] is not None:
            best = self.checkpoints.resolve() / Path(state["best_model_checkpoint"]).name
            if not best.is_dir():
                raise InputError(
                    f"{best}: the best checkpoint is missing; start again with a new --run"
                )
            write_atomically(
                path, json.dumps({**state, "best_model_checkpoint": str(best)}, indent=2).encode()
            )

    def last_checkpoint(self) -> Path | None:
        """Return the newest complete checkpoint; its state file is written last."""
        checkpoints = sorted(self.checkpoints.glob("checkpoint-*"), key=step_of, reverse=True)
        return next((path for path in checkpoints if _is_complete(path)), None)


def is_over(checkpoint: Path) -> bool:
    """Return whether a checkpoint is from its run's last step, the planned one or an early stop."""
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    control = state["stateful_callbacks"].get("TrainerControl", {}).get("args", {})
    return bool(state["global_step"] >= state["max_steps"] or control.get("should_training_stop"))


def step_of(checkpoint: Path) -> int:
    """Return the optimiser step of a checkpoint."""
    return int(checkpoint.name.rpartition("-")[2])


def _is_complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return True
