"""HF `Trainer` for students: cached batches, exact validation loss, checkpoints without pickle."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer

from pipeline.batches.decoder import StatesDecoder
from pipeline.batches.loader import CachedBatches
from pipeline.device import deterministic
from pipeline.errors import RunError
from pipeline.training import checkpoint_state
from pipeline.training.distillation import TeachersPredictions
from pipeline.training.validation import validation_loss

_LOWER = "lower the learning rates and start again"


class StudentTrainer(Trainer):
    """Trains a student from cached batches.

    `_save_optimizer_and_scheduler`, `_save_rng_state`, their `_load_…` counterparts,
    `_load_from_checkpoint` and `_load_best_model` override private methods of `Trainer`. It has no
    public ones for the state of a checkpoint: a callback runs only after the state file, which must
    be written last because it marks a checkpoint as complete.
    """

    _tokens_before: int | None
    """Tokens that all processes had read when the clock started; None until the next batch."""

    def __init__(
        self,
        *args: Any,
        training: CachedBatches,
        validation: CachedBatches,
        decoder: StatesDecoder,
        predictions: TeachersPredictions | None = None,
        **kwargs: Any,
    ) -> None:
        """Create the trainer.

        Args:
            training: this process's training batches.
            validation: this process's batches of held-out examples.
            decoder: decodes the hidden states of each batch on the training device.
            predictions: adds the teacher's predictions as soft targets; None: no distillation.
            args, kwargs: as for `Trainer`.
        """
        super().__init__(*args, **kwargs | {"eval_dataset": validation.dataset})
        self._training, self._validation = training, validation
        self._decoder = decoder.to(self.args.device)
        self._predictions = None if predictions is None else predictions.to(self.args.device)
        self._restart_clock()
        if rank := self.args.process_index:  # `Trainer` gives all processes the same dropout
            torch.manual_seed(self.args.seed + rank)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as `Trainer` does, with deterministic algorithms."""
        with deterministic(self.args.device):
            return super().train(*args, **kwargs)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the batches of this process."""
        return self._training

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss; logits of long examples do not fit in memory, so there are none."""
        inputs = self._decoder(inputs)
        if self._predictions is not None:
            inputs = self._predictions(inputs)
        output = model(**inputs, loss_only=True, num_items_in_batch=num_items_in_batch)
        loss = output.loss * self.args.world_size  # gradients are averaged over the processes
        return (loss, output) if return_outputs else loss

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """Return the batches of one optimiser step, and measure the wait for them."""
        if self._tokens_before is None:
            self._tokens_before = self.state.num_input_tokens_seen
        start = time.perf_counter()
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._wait_seconds += time.perf_counter() - start
        return batches, items

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log with speed and the share of time spent waiting for batches.

        Raises:
            RunError: the loss is not finite.
        """
        if not math.isfinite(logs.get("loss", 0.0)):
            raise RunError(f"step {self.state.global_step}: the loss is {logs['loss']}; {_LOWER}")
        if "loss" in logs:
            seconds = time.perf_counter() - self._start
            tokens = self.state.num_input_tokens_seen - (self._tokens_before or 0)
            logs["tokens_per_second"] = round(tokens / seconds, 1)
            logs["loader_wait_share"] = round(self._wait_seconds / seconds, 4)
            self._restart_clock()
        super().log(logs, start_time)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Return the validation loss in nats per labelled token.

        Raises:
            RunError: the loss is not finite.
        """
        paused = time.perf_counter()
        assert self.model is not None
        result = validation_loss(
            self.model, self._validation, self._decoder, self.args.device, self.accelerator.reduce
        )
        if not math.isfinite(result.loss):
            raise RunError(
                f"step {self.state.global_step}: the validation loss is {result.loss}; {_LOWER}"
            )
        metrics = {f"{metric_key_prefix}_loss": result.loss}
        self.log({"val_loss": result.loss, "val_perplexity": result.perplexity})
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        self._start += time.perf_counter() - paused
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the student's trained weights to a folder, from the main process."""
        assert self.model is not None and output_dir is not None
        if self.args.should_save:
            checkpoint_state.save_weights(Path(output_dir), self.model)

    def _restart_clock(self) -> None:
        self._start, self._wait_seconds = time.perf_counter(), 0.0
        self._tokens_before = None

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        assert self.model is not None
        checkpoint_state.load_weights(Path(resume_from_checkpoint), self.model)

    def _load_best_model(self) -> None:
        assert self.state.best_model_checkpoint is not None and self.model is not None
        checkpoint_state.load_weights(Path(self.state.best_model_checkpoint), self.model)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.args.should_save:
            checkpoint_state.save_optimizer(Path(output_dir), self.optimizer, self.lr_scheduler)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoint_state.load_optimizer(Path(checkpoint), self.optimizer, self.lr_scheduler)

    def _save_rng_state(self, output_dir: str) -> None:
        checkpoint_state.save_random_state(Path(output_dir), self.args.process_index)
        # the state file is next, and marks the checkpoint as complete
        self.args.distributed_state.wait_for_everyone()

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoint_state.load_random_state(Path(checkpoint), self.args.process_index)
