"""The settings of a run as arguments and callbacks of HF `Trainer`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress
from torch.utils.tensorboard import SummaryWriter
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments
from transformers.integrations.integration_utils import (
    TensorBoardCallback,
    get_reporting_integration_callbacks,
)

from pipeline.device import choose_device, choose_dtype
from pipeline.errors import InputError, reason
from pipeline.processes import Share
from pipeline.runs.folder import RunFolder, step_of
from pipeline.runs.settings import TrainSettings
from pipeline.training.callbacks import LogWithEvaluation, MetricsFile, ProgressBar, Stopwatch

_WORKERS = 2
"""Loader processes per GPU; none on a CPU."""


class OneDeviceArguments(TrainingArguments):
    """Training arguments for one device per process, however many there are.

    `Trainer` would use DataParallel on several GPUs, which changes batch size and steps.
    """

    @property
    def n_gpu(self) -> int:
        """Number of GPUs of this process, at most one."""
        count: int = super().n_gpu
        return min(count, 1)


def training_arguments(
    settings: TrainSettings, folder: RunFolder, *, processes: int
) -> TrainingArguments:
    """Return the arguments of each process; each has one device.

    Args:
        settings: of the run.
        folder: of the run.
        processes: number of processes that train together.

    Raises:
        InputError: there is no such device, it is not the first one, or the batches of a step
            cannot be divided among the processes.
    """
    batches = settings.batches_per_step(processes)
    if batches % processes:
        raise InputError(
            f"--accumulate {batches}: cannot be divided among {processes} processes;"
            f" choose a multiple of {processes}"
        )
    device = choose_device(settings.device)
    if device.index:
        raise InputError(
            f"--device {settings.device}: training uses the first visible device; set"
            " CUDA_VISIBLE_DEVICES instead"
        )
    on_cpu = device.type == "cpu"
    strategy = "epoch" if settings.eval_every is None else "steps"
    return OneDeviceArguments(
        output_dir=str(folder.checkpoints.resolve()),
        num_train_epochs=settings.epochs,
        max_steps=-1 if settings.max_steps is None else settings.max_steps,
        gradient_accumulation_steps=batches // processes,
        learning_rate=settings.bridge_lr,
        lr_scheduler_type=(
            "constant_with_warmup" if settings.schedule == "constant" else settings.schedule
        ),
        warmup_steps=settings.warmup,
        max_grad_norm=settings.clip,
        eval_strategy=strategy,
        save_strategy=strategy,
        eval_steps=settings.eval_every,
        save_steps=settings.eval_every or 500,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
        disable_tqdm=True,
        report_to=[],
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        seed=settings.seed,
        data_seed=settings.seed,
        use_cpu=on_cpu,
        bf16=settings.precision == "bf16"
        or (not on_cpu and choose_dtype(settings.precision, device) == "bf16"),
        dataloader_num_workers=(
            (0 if on_cpu else _WORKERS)
            if settings.loader_workers is None
            else settings.loader_workers
        ),
        dataloader_pin_memory=device.type == "cuda",
        ddp_find_unused_parameters=False,
        remove_unused_columns=False,
    )


def training_callbacks(
    settings: TrainSettings,
    folder: RunFolder,
    share: Share,
    reporters: Sequence[TrainerCallback],
    checkpoint: Path | None,
    progress: Progress,
    title: str,
) -> list[TrainerCallback]:
    """Return stopwatch, metrics.jsonl, progress bar, TensorBoard, reporters and early stopping."""
    after = None if checkpoint is None else step_of(checkpoint) + 1
    callbacks: list[TrainerCallback] = [
        *reporters,
        LogWithEvaluation(),
        Stopwatch(),
        MetricsFile(folder.metrics),
        ProgressBar(progress, title),
    ]
    if share.rank == 0:
        callbacks.append(
            TensorBoardCallback(SummaryWriter(str(folder.tensorboard), purge_step=after))
        )
    if settings.patience:
        callbacks.append(EarlyStoppingCallback(settings.patience, settings.min_delta))
    return callbacks


def find_reporter(name: str) -> TrainerCallback:
    """Return the callback that reports to a service.

    Raises:
        InputError: transformers does not support it, or it is not installed.
    """
    try:
        (callback_class,) = get_reporting_integration_callbacks(name)
        reporter: TrainerCallback = callback_class()
    except (ImportError, RuntimeError, ValueError) as error:
        raise InputError(f"--report-to {name}: {reason(error)}") from error
    return reporter
