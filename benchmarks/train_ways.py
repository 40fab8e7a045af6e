"""The ways to train that `train.py` compares, and the measurement of one."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from plain_teacher import load_plain_teacher
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from cache import open_cache
from pipeline.batches.examples import BatchItem
from pipeline.batches.loader import CachedBatches
from pipeline.device import choose_device, choose_dtype
from pipeline.labels import IGNORE
from pipeline.processes import Share
from pipeline.runs.settings import TrainSettings
from pipeline.teacher.load import load_teacher
from pipeline.teacher.model import Teacher
from pipeline.teacher.source import find_teacher
from pipeline.training.prepare import PreparedRun, prepare_run
from pipeline.training.trainer import StudentTrainer

Marks = list[tuple[float, int]]
"""Seconds and tokens at the end of the first and of the last step."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of the benchmark that a way depends on."""

    teacher: str
    student: str
    steps: int
    passes: int
    batch_tokens: int
    device: str


@dataclass(frozen=True)
class Way:
    """A way to train.

    Attributes:
        cache: name of the cache; ways with a live teacher read only its tokens.
        settings: that differ from the defaults of `TrainSettings`.
        live: the teacher computes the states.
        in_memory: all batches are read in advance.
    """

    cache: str
    settings: dict[str, Any] = field(default_factory=dict)
    live: bool = False
    in_memory: bool = False


WAYS = {
    "published": Way("bf16", live=True),
    "online": Way("bf16", {"batch_tokens": 0}, live=True),
    "cache, batch 1": Way("bf16"),
    "cache bf16": Way("bf16", {"batch_tokens": 0}),
    "cache klt": Way("klt", {"batch_tokens": 0}),
    "RAM": Way("bf16", {"batch_tokens": 0}, in_memory=True),
    "cache klt, vocab dataset": Way("klt", {"batch_tokens": 0, "vocab": "dataset"}),
    "cache klt, bf16": Way("klt", {"batch_tokens": 0, "precision": "bf16"}),
    "cache klt, vocab dataset, bf16": Way(
        "klt", {"batch_tokens": 0, "vocab": "dataset", "precision": "bf16"}
    ),
}


class Clock(TrainerCallback):
    """Marks the end of the first step and of the last."""

    def __init__(self) -> None:
        self.marks: Marks = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the first step."""
        if not self.marks:
            self._mark(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the last step."""
        self._mark(state)

    def _mark(self, state: Any) -> None:
        self.marks.append((synchronized_time(), state.num_input_tokens_seen))


def synchronized_time() -> float:
    """Return the time when the device has finished all its work."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


class InMemory(Dataset[Any]):
    """Items that have been read in advance."""

    is_remote = False

    def __init__(self, items: Any) -> None:
        self._items = [items[index] for index in range(len(items))]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, item: BatchItem | int) -> Any:
        return self._items[item.place if isinstance(item, BatchItem) else item]


class LiveStates(torch.nn.Module):
    """A live teacher in place of a decoder."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self._teacher = [teacher]  # in a list, so not a submodule

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the batch with the last layer's states."""
        states = self._teacher[0].hidden_states(batch["input_ids"], batch["attention_mask"])[-1]
        return batch | {"hidden_states": states.to(torch.bfloat16).clone()}


def measure(name: str, folder: Path, options: TrainOptions) -> dict[str, float]:
    """Train one way in this process; return tokens per second, memory and loader wait."""
    way, device = WAYS[name], choose_device(options.device)
    changes = way.settings | (
        {"batch_tokens": options.batch_tokens} if "batch_tokens" in way.settings else {}
    )
    with tempfile.TemporaryDirectory() as scratch, open_cache(folder / way.cache) as cache:
        settings = TrainSettings(
            cache=folder / way.cache,
            run=Path(scratch) / "run",
            student=options.student,
            device=options.device,
            validation=0.05,
            **changes,
        )
        run = prepare_run(cache, settings, Share())
        steps = (
            options.steps
            if name in ("published", "cache, batch 1")
            else len(run.training) * options.passes
        )
        if name == "published":
            marks, waited = train_as_published(run, options.teacher, device, steps), 0.0
        else:
            marks, waited = train_here(run, way, options, steps)
    (began, before), (ended, after) = marks[0], marks[-1]
    return {
        "tokens_per_second": (after - before) / (ended - began),
        "megabytes": _peak_megabytes(device),
        "loader_wait_share": waited,
    }


def _peak_megabytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024


def train_as_published(run: PreparedRun, teacher: str, device: torch.device, steps: int) -> Marks:
    """Train as the published code: one example per step, whole teacher, whole logits."""
    whole = load_plain_teacher(find_teacher(teacher), device)
    model = torch.nn.Module.to(run.model, device).train()
    marks: Marks = []
    tokens = 0
    for _, batch in zip(range(steps), run.training, strict=False):
        batch = {name: values.to(device) for name, values in batch.items()}
        with torch.no_grad():
            states = whole(batch["input_ids"], output_hidden_states=True).hidden_states[-1]
        logits = model(hidden_states=states.float(), attention_mask=batch["attention_mask"]).logits
        loss = cross_entropy(logits[0, :-1].float(), batch["labels"][0, 1:], ignore_index=IGNORE)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        run.optimizer.step()
        run.optimizer.zero_grad()
        tokens += batch["input_ids"].numel()
        marks = marks or [(synchronized_time(), tokens)]
    return [*marks, (synchronized_time(), tokens)]


def train_here(
    run: PreparedRun, way: Way, options: TrainOptions, steps: int
) -> tuple[Marks, float]:
    """Train with this project's trainer, without validation and checkpoints."""
    clock, waits = Clock(), []
    arguments = run.arguments
    arguments.max_steps, arguments.logging_steps = steps, max(1, steps // 2)
    arguments.save_strategy = arguments.eval_strategy = "no"
    arguments.load_best_model_at_end = False
    if way.in_memory:
        run = replace(
            run, training=CachedBatches(InMemory(run.training.dataset), run.training.batch_sampler)
        )
    decoder: Any = run.decoder
    if way.live:
        device = choose_device(options.device)
        dtype = choose_dtype("auto", device)
        decoder = LiveStates(load_teacher(find_teacher(options.teacher), [-1], device, dtype))

    class Trainer(StudentTrainer):
        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            super().log(logs, start_time)
            waits.extend([logs["loader_wait_share"]] if "loader_wait_share" in logs else [])

    trainer = Trainer(
        run.model,
        arguments,
        training=run.training,
        validation=run.validation,
        decoder=decoder,
        optimizers=(run.optimizer, None),
        callbacks=[clock],
    )
    for default in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(default)
    trainer.train()
    return clock.marks, sum(waits) / max(1, len(waits))
