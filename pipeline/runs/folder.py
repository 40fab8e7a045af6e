"""Where a run keeps what, and its record of itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.files import write_atomically
from pipeline.errors import InputError
from pipeline.runs.comparisons import comparisons_folder, display_order
from pipeline.runs.record import NewerRecordError, RunRecord
from pipeline.runs.settings import TrainSettings


@dataclass(frozen=True)
class RunFolder:
    """A run's folder.

    It holds `model/`, `checkpoints/`, `metrics.jsonl`, `run.json`, `train.yaml`, `tensorboard/`,
    `loss.png`, `comparisons/` and `evaluation/`."""

    root: Path

    @property
    def model(self) -> Path:
        """The best student with its tokenizer, as `save_pretrained` writes it."""
        return self.root / "model"

    @property
    def teachers_tokenizer(self) -> Path:
        """The teacher's tokenizer, where the student's tokens are its own."""
        return self.model / "teacher_tokenizer"

    @property
    def checkpoints(self) -> Path:
        """Best and last checkpoint."""
        return self.root / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One JSON object a log step."""
        return self.root / "metrics.jsonl"

    @property
    def options(self) -> Path:
        """The options of the command that began it, as its `--config` takes them."""
        return self.root / "train.yaml"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.root / "tensorboard"

    @property
    def curve(self) -> Path:
        """The losses as a picture."""
        return self.root / "loss.png"

    @property
    def evaluation(self) -> Path:
        """Results and report."""
        return self.root / "evaluation"

    def comparisons(self) -> dict[str, RunFolder]:
        """The comparison runs that were asked for, by name, in the order in which they are told of.

        Raises:
            InputError: one of them is not finished.
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
        """The comparison runs that are finished, by name, in the order in which they are told of."""
        names = sorted(self.read_record().comparisons, key=display_order)
        runs = {name: RunFolder(comparisons_folder(self.root) / name) for name in names}
        return {
            name: run for name, run in runs.items() if run.exists() and run.read_record().finished
        }

    def curves(self) -> dict[str, list[dict[str, Any]]]:
        """The logged steps of this run and of its finished comparison runs, by name."""
        return {
            name: run.read_metrics()
            for name, run in {"student": self, **self.finished_comparisons()}.items()
        }

    def exists(self) -> bool:
        """Whether a run was begun here."""
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
                f"{self.root}: not a run (it has no run.json); make one with `train --run"
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
        """Keep what repeats the run; nothing where it was not begun by the command."""
        if options:
            write_atomically(self.options, options.encode())

    def read_metrics(self) -> list[dict[str, Any]]:
        """The logged steps, without a last line that a killed run did not finish."""
        records = []
        for line in self.metrics.read_text().splitlines() if self.metrics.is_file() else []:
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def continue_from(self, checkpoint: Path | None) -> None:
        """Make ready to go on from a checkpoint (None: from the start): forget what was logged
        after it, and point it to the best checkpoint where the run lies now.

        Raises:
            InputError: the best checkpoint is gone.
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
                    f"{best}: the best checkpoint is gone; start again with a new --run"
                )
            write_atomically(
                path, json.dumps({**state, "best_model_checkpoint": str(best)}, indent=2).encode()
            )

    def last_checkpoint(self) -> Path | None:
        """The newest whole checkpoint: its state file is written last, so where that cannot be read
        it was cut short."""
        found = sorted(self.checkpoints.glob("checkpoint-*"), key=step_of, reverse=True)
        return next((path for path in found if _is_whole(path)), None)


def is_over(checkpoint: Path) -> bool:
    """Whether a checkpoint was taken after the last step of its run, be it the last one asked for
    or because it stopped early."""
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    control = state["stateful_callbacks"].get("TrainerControl", {}).get("args", {})
    return bool(state["global_step"] >= state["max_steps"] or control.get("should_training_stop"))


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which a checkpoint was taken."""
    return int(checkpoint.name.rpartition("-")[2])


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return True
