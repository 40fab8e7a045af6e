"""HF `Trainer` as this project uses it: two learning rates, honest validation loss, checkpoints
without pickle."""

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
from pipeline.model import LLMModulesForCausalLM
from pipeline.training import checkpoint_state
from pipeline.training.distillation import TeachersPredictions
from pipeline.training.validation import validation_loss

_LOWER = "lower the learning rates and start again"


class StudentTrainer(Trainer):
    """Trains a student from cached features."""

    _seen: int | None
    """Tokens that all processes had read when the clock was started; None before the next batch is
    fetched."""

    def __init__(
        self,
        *args: Any,
        training: CachedBatches,
        validation: CachedBatches,
        decoder: StatesDecoder,
        predictions: TeachersPredictions | None = None,
        **kwargs: Any,
    ) -> None:
        """As `Trainer`.

        Args:
            training: this process's batches of each epoch.
            validation: its share of the examples held out.
            decoder: decodes the hidden states of each batch on the training device.
            predictions: makes soft targets, where the student is to learn what the teacher would
                have said.
            args, kwargs: of `Trainer`.
        """
        super().__init__(*args, **kwargs | {"eval_dataset": validation.dataset})
        self._training, self._validation = training, validation
        self._decoder = decoder.to(self.args.device)
        self._predictions = None if predictions is None else predictions.to(self.args.device)
        self._restart_clock()

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer`, and to the same weights each time."""
        with deterministic(self.args.device):
            return super().train(*args, **kwargs)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return self._decoder(super()._prepare_inputs(inputs))  # type: ignore[no-any-return]  # a module's call is untyped

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches that are dealt out to the processes already."""
        return self._training

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss without the logits, which do not fit in memory for long examples."""
        if self._predictions is not None:
            inputs = self._predictions(inputs)
        output = model(**inputs, loss_only=True, num_items_in_batch=num_items_in_batch)
        loss = (
            output.loss * self.args.world_size
        )  # the processes' gradients are averaged; each token is to count alike
        return (loss, output) if return_outputs else loss

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """Fetch the batches of one optimiser step, and note how long that took."""
        self._seen = self.state.num_input_tokens_seen if self._seen is None else self._seen
        began = time.perf_counter()
        fetched, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._waited += time.perf_counter() - began
        return fetched, items

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add speed and the share of time spent waiting for batches.

        Raises:
            RunError: the loss is not finite.
        """
        if not math.isfinite(logs.get("loss", 0.0)):
            raise RunError(f"step {self.state.global_step}: the loss is {logs['loss']}; {_LOWER}")
        if "loss" in logs:
            seconds = time.perf_counter() - self._since
            logs["tokens_per_second"] = round(
                (self.state.num_input_tokens_seen - (self._seen or 0)) / seconds, 1
            )
            logs["loader_wait_share"] = round(self._waited / seconds, 4)
            self._restart_clock()
        super().log(logs, start_time)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Validation loss in nats a labelled token, however the batches are cut."""
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
        self._since += time.perf_counter() - paused
        return metrics

    def _restart_clock(self) -> None:
        self._since, self._waited = time.perf_counter(), 0.0
        self._seen = None

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        assert isinstance(self.model, LLMModulesForCausalLM)
        assert output_dir is not None
        self.model.save_pretrained(output_dir, state_dict=state_dict)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.args.should_save:
            checkpoint_state.save_optimizer(Path(output_dir), self.optimizer, self.lr_scheduler)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoint_state.load_optimizer(Path(checkpoint), self.optimizer, self.lr_scheduler)

    def _save_rng_state(self, output_dir: str) -> None:
        checkpoint_state.save_random_state(Path(output_dir), self.args.process_index)
        # the state file comes next, and says that the checkpoint is whole
        self.args.distributed_state.wait_for_everyone()

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoint_state.load_random_state(Path(checkpoint), self.args.process_index)
