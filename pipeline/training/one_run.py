"""One training run, from its record on disk to the saved model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerState

from cache import Cache
from pipeline.model import LLMModulesForCausalLM
from pipeline.processes import process_share
from pipeline.progress import NO_PROGRESS, count_columns, progress_bar, shown_progress
from pipeline.runs.environment import peak_memory, reset_peak_memory
from pipeline.runs.examples import students_hash
from pipeline.runs.folder import RunFolder, is_over
from pipeline.runs.record import RunRecord, RunResult
from pipeline.runs.resume import earlier_record, new_record
from pipeline.runs.settings import TrainSettings
from pipeline.training.absence import loaded_modules, require_no_teacher, weights_of_run
from pipeline.training.adapters import merge_adapters
from pipeline.training.arguments import training_callbacks
from pipeline.training.callbacks import Stopwatch, progress_columns
from pipeline.training.checkpoint_state import load_weights
from pipeline.training.frozen_weights import rounded_while_training
from pipeline.training.prepare import PreparedRun, prepare_run
from pipeline.training.trainer import StudentTrainer


def train_one(
    settings: TrainSettings,
    cache: Cache,
    title: str,
    comparisons: Sequence[str],
    *,
    resume: bool,
    options: str = "",
) -> RunRecord:
    """Train one student, unless it is finished; return its record.

    Args:
        settings: of the run.
        cache: to train from.
        title: of the run, for progress.
        comparisons: names of the comparison runs that its record lists.
        resume: continue from the last checkpoint.
        options: the command's options as YAML, stored in the run's folder.

    Raises:
        InputError: as `train`.
        RunError: as `train`.
    """
    folder, share = RunFolder(settings.run), process_share()
    record = new_record(settings, cache, comparisons, students_hash(settings, cache))
    if (earlier := earlier_record(folder, record, resume=resume)) is not None:
        record = record.with_comparisons(earlier.comparisons)
        if earlier.finished:
            if record.comparisons != earlier.comparisons and share.rank == 0:
                folder.write_record(earlier.with_comparisons(record.comparisons))
            return earlier
    with shown_progress(*count_columns(f"{title}: ")) as shown:
        progress = shown if share.rank == 0 else NO_PROGRESS
        prepared = prepare_run(cache, settings, share, progress)
    require_no_teacher()
    reset_peak_memory()
    checkpoint = folder.last_checkpoint() if resume else None
    processes = prepared.arguments.distributed_state
    processes.wait_for_everyone()  # rank 0 changes files that all have read
    if share.rank == 0:
        folder.root.mkdir(parents=True, exist_ok=True)
        folder.write_record(record)
        if not folder.options.exists():
            folder.write_options(options)
        folder.continue_from(checkpoint)
    processes.wait_for_everyone()
    in_bfloat16 = prepared.arguments.bf16 and prepared.arguments.max_steps != 0
    with (
        progress_bar(*progress_columns()) as bar,
        rounded_while_training(prepared.model) if in_bfloat16 else nullcontext(),
    ):
        trainer = StudentTrainer(
            prepared.model,
            prepared.arguments,
            training=prepared.training,
            validation=prepared.validation,
            decoder=prepared.decoder,
            predictions=prepared.predictions,
            optimizers=(prepared.optimizer, None),
            callbacks=training_callbacks(
                settings, folder, share, prepared.reporters, checkpoint, bar, title
            ),
        )
        for default in (ProgressCallback, PrinterCallback):
            trainer.remove_callback(default)
        seconds = _train_to_the_end(trainer, checkpoint)
    require_no_teacher()
    state = trainer.state
    assert state.epoch is not None and state.best_metric is not None
    assert state.best_global_step is not None
    record = replace(
        record,
        left_out=prepared.left_out,
        outcome=RunResult(
            steps=state.global_step,
            epochs=state.epoch,
            tokens=int(state.num_input_tokens_seen),
            best_step=state.best_global_step,
            best_val_loss=state.best_metric,
            seconds=seconds,
            parameters=prepared.model.num_parameters(),
            layer_weights=_layer_weights(prepared.model),
            peak_memory=peak_memory(),
            weights_in_memory=weights_of_run(prepared),
            loaded=loaded_modules(),
        ),
    )
    if share.rank == 0:
        _save_model(folder, prepared)
        folder.write_record(record)
    return record


def _layer_weights(model: LLMModulesForCausalLM) -> dict[str, float]:
    """Return the learned weights of mixed layers by layer; empty if layers are not mixed."""
    weights = model.bridge.layer_weights or []
    layers = map(str, model.config.teacher_layers if weights else ())
    return dict(zip(layers, weights, strict=True))


def _train_to_the_end(trainer: StudentTrainer, checkpoint: Path | None) -> float:
    """Train unless the checkpoint is the last one, and load the best student.

    Returns:
        Seconds of training, including those before the checkpoint.
    """
    if trainer.args.max_steps == 0:
        trainer.state.best_metric = trainer.evaluate()["eval_loss"]
        trainer.state.best_global_step, trainer.state.epoch = 0, 0
        return 0.0
    if checkpoint is None or not is_over(checkpoint):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        callbacks = trainer.callback_handler.callbacks
        return next(watch.seconds for watch in callbacks if isinstance(watch, Stopwatch))
    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    best = trainer.state.best_model_checkpoint
    assert trainer.model is not None
    load_weights(Path(best or checkpoint), trainer.model)
    states: Any = trainer.state.stateful_callbacks
    return float(states[Stopwatch.__name__]["args"]["seconds"])


def _save_model(folder: RunFolder, prepared: PreparedRun) -> None:
    model, partial = prepared.model, folder.root / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    merge_adapters(model)
    model.config.use_cache = True
    model.generation_config.use_cache = True
    model.save_pretrained(partial)
    prepared.tokenizer.save_pretrained(partial)
    if model.config.own_tokens:
        prepared.teachers_tokenizer.save_pretrained(partial / folder.teachers_tokenizer.name)
    shutil.rmtree(folder.model, ignore_errors=True)
    partial.rename(folder.model)
