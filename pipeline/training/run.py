"""A training run from a cache: the student, and its controls at equal steps and tokens. No teacher anywhere."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from rich.progress import Progress
from torch.utils.tensorboard import SummaryWriter
from transformers import (
    EarlyStoppingCallback,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.integrations.integration_utils import TensorBoardCallback

from cache import Cache, open_cache
from pipeline.batches.collate import collate
from pipeline.batches.features import CachedFeatures
from pipeline.data.split import split_rows
from pipeline.data.tokenizer import load_same_tokenizer
from pipeline.device import choose_device, choose_dtype
from pipeline.errors import InputError
from pipeline.model import LLMModulesForCausalLM, build_student
from pipeline.progress import progress_bar
from pipeline.training.callbacks import MetricsFile, ProgressBar, progress_columns
from pipeline.training.run_folder import RunFolder, environment, peak_memory
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import StudentTrainer, build_optimizer

_NOT_COMPARED = {"cache", "run", "device", "loader_workers"}


def train(settings: TrainSettings, *, controls: Sequence[str] = (), resume: bool = False) -> dict[str, Any]:
    """Train a student from a cache, then each control named; returns the student's record (run.json).

    Raises:
        CacheError: there is no whole cache there, or it is damaged.
        InputError: the cache lacks the layer, the run exists (or differs from what is resumed), no such student.
        RunError: the loss is not finite.
    """
    with open_cache(settings.cache) as cache:
        for name in controls:
            _require_layer(cache, settings.control(name, steps=1))
        record = _train_one(settings, cache, "student", resume=resume)
        for name in controls:
            control = settings.control(name, steps=record["result"]["steps"])
            _train_one(control, cache, name, resume=resume or RunFolder(control.run).exists())
    return record


def _train_one(settings: TrainSettings, cache: Cache, title: str, *, resume: bool) -> dict[str, Any]:
    folder = RunFolder(settings.run)
    _require_layer(cache, settings)
    record = _new_record(settings, cache)
    earlier = _earlier_record(folder, record, resume=resume)
    if earlier is not None and earlier["finished"]:
        return earlier
    try:
        train_rows, validation_rows = split_rows(cache.row_ids, validation=settings.validation, seed=settings.seed)
    except ValueError as error:
        raise InputError(f"{cache.root}: {error}; extract more rows, or change --validation") from error
    tokenizer = load_same_tokenizer(cache.attachment("tokenizer"), cache.identity["tokenizer"])
    set_seed(settings.seed)
    model = _build(settings, cache, tokenizer)
    layer = settings.layer if settings.condition == "sequence" else None
    folder.root.mkdir(parents=True, exist_ok=True)
    folder.write_record(record)
    with progress_bar(*progress_columns()) as progress:
        trainer = StudentTrainer(
            model,
            _arguments(settings, folder),
            data_collator=collate,
            train_dataset=CachedFeatures(cache, train_rows, layer),
            eval_dataset=CachedFeatures(cache, validation_rows, layer),
            optimizers=(
                build_optimizer(
                    model, bridge_lr=settings.bridge_lr, gpt_neo_lr=settings.gpt_neo_lr, weight_decay=settings.weight_decay
                ),
                None,
            ),
            callbacks=_callbacks(settings, folder, progress, title),
        )
        for default in (ProgressCallback, PrinterCallback):
            trainer.remove_callback(default)
        checkpoint = folder.last_checkpoint() if resume else None
        folder.cut_metrics(int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0)
        outcome = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    _save_model(folder, model, tokenizer)
    record |= {
        "finished": True,
        "result": {
            "steps": outcome.global_step,
            "epochs": trainer.state.epoch,
            "tokens": trainer.state.num_input_tokens_seen,
            "best_step": trainer.state.best_global_step,
            "best_val_loss": trainer.state.best_metric,
            "seconds": outcome.metrics["train_runtime"],
            "parameters": model.num_parameters(),
            "peak_memory": peak_memory(),
        },
    }
    folder.write_record(record)
    return record


def _require_layer(cache: Cache, settings: TrainSettings) -> None:
    if settings.condition == "sequence" and settings.layer not in cache.layers:
        held = ", ".join(map(str, cache.layers))
        raise InputError(
            f"{cache.root}: holds layer {held}, not layer {settings.layer}; "
            f"extract with --layers {held.replace(' ', '')},{settings.layer}"
        )


def _new_record(settings: TrainSettings, cache: Cache) -> dict[str, Any]:
    return {
        "kind": "llm-modules run",
        "finished": False,
        "leaks": settings.condition == "sequence" and settings.cross_attention == "bidirectional",
        "settings": settings.as_json(),
        "identity": {"cache": cache.identity, "content_digest": cache.content_digest},
        "provenance": cache.manifest.provenance,
        "environment": environment(),
    }


def _earlier_record(folder: RunFolder, record: dict[str, Any], *, resume: bool) -> dict[str, Any] | None:
    """The record of the run to go on with, or None for a new one; refuses a folder that is neither."""
    if not folder.exists():
        if folder.root.exists() and (not folder.root.is_dir() or any(folder.root.iterdir())):
            raise InputError(f"{folder.root}: exists and is not a run; choose a new folder for --run")
        return None
    if not resume:
        raise InputError(f"{folder.root}: holds a run already; pass --resume to go on with it, or choose a new folder for --run")
    earlier = folder.read_record()
    compared = [("settings", name) for name in record["settings"] if name not in _NOT_COMPARED]
    for part, name in [*compared, ("identity", "content_digest")]:
        was, now = earlier[part].get(name), record[part][name]
        if was != now:
            raise InputError(f"{folder.root}: cannot be resumed: {name} was {was!r}, now it is {now!r}")
    return earlier


def _build(settings: TrainSettings, cache: Cache, tokenizer: PreTrainedTokenizerBase) -> LLMModulesForCausalLM:
    end = tokenizer.eos_token_id
    assert isinstance(end, int)  # extract refuses a tokenizer without an end token
    pad = tokenizer.pad_token_id
    model = build_student(
        settings.student,
        vocab_size=int(cache.manifest.provenance["vocab_size"]),
        longest=int(cache.lengths.max()),
        teacher_hidden_size=cache.hidden_size,
        teacher_layer=settings.layer,
        condition=settings.condition,
        cross_attention=settings.cross_attention,
        eos_token_id=end,
        pad_token_id=pad if isinstance(pad, int) else end,
    )
    model.config.use_cache = False  # no key-value cache in training; generation asks for one
    return model


def _arguments(settings: TrainSettings, folder: RunFolder) -> TrainingArguments:
    device = choose_device(settings.device)
    when = "epoch" if settings.eval_every is None else "steps"
    return TrainingArguments(
        output_dir=str(folder.checkpoints),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.bridge_lr,
        lr_scheduler_type="constant",
        max_grad_norm=settings.clip,
        eval_strategy=when,
        save_strategy=when,
        eval_steps=settings.eval_every,
        save_steps=settings.eval_every or 500,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=[],
        seed=settings.seed,
        data_seed=settings.seed,
        use_cpu=device.type == "cpu",
        bf16=(device.type != "cpu" and choose_dtype(settings.precision, device) == "bf16") or settings.precision == "bf16",
        dataloader_num_workers=settings.loader_workers,
        dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False,
        include_num_input_tokens_seen="non_padding",
    )


def _callbacks(settings: TrainSettings, folder: RunFolder, progress: Progress, title: str) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = [
        MetricsFile(folder.metrics),
        ProgressBar(progress, title),
        TensorBoardCallback(SummaryWriter(str(folder.tensorboard))),
    ]
    if settings.patience:
        callbacks.append(EarlyStoppingCallback(settings.patience, settings.min_delta))
    return callbacks


def _save_model(folder: RunFolder, model: LLMModulesForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    staged = folder.root / "model.partial"
    shutil.rmtree(staged, ignore_errors=True)
    model.config.use_cache = True
    model.generation_config.use_cache = True
    model.save_pretrained(staged)
    tokenizer.save_pretrained(staged)
    shutil.rmtree(folder.model, ignore_errors=True)
    staged.rename(folder.model)
