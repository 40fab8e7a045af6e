"""A training run from a cache: the student, and its controls at equal steps and tokens. No teacher anywhere."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase, PrinterCallback, ProgressCallback, set_seed

from cache import Cache, open_cache
from pipeline.batches.decoder import StatesDecoder
from pipeline.batches.features import CachedFeatures
from pipeline.batches.loader import CachedBatches
from pipeline.batches.order import order_of
from pipeline.batches.sampler import TrainingBatches, ValidationBatches
from pipeline.data.split import split_rows
from pipeline.data.tokenizer import load_same_tokenizer
from pipeline.data.vocabulary import VOCABULARY, read_vocabulary
from pipeline.errors import InputError
from pipeline.model import LLMModulesForCausalLM, build_student, student_body
from pipeline.processes import own_share
from pipeline.progress import progress_bar
from pipeline.training.absence import loaded_rooms, require_no_teacher
from pipeline.training.arguments import training_arguments, training_callbacks
from pipeline.training.callbacks import progress_columns
from pipeline.training.record import earlier_record, new_record
from pipeline.training.run_folder import RunFolder, peak_memory
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import StudentTrainer, build_optimizer


def train(settings: TrainSettings, *, controls: Sequence[str] = (), resume: bool = False) -> dict[str, Any]:
    """Train a student from a cache, then each control named; returns the student's record (run.json).

    Raises:
        CacheError: there is no whole cache there, or it is damaged.
        InputError: the cache lacks the layer, the run exists (or differs from what is resumed), no such student.
        RunError: the loss is not finite, or another model's weights are in memory.
    """
    settings = replace(settings, accumulate=settings.accumulate or own_share().processes)
    with open_cache(settings.cache) as cache:
        for each in (settings, *(settings.control(name, steps=1) for name in controls)):
            _require_fit(cache, each)
        record = _train_one(settings, cache, "student", controls, resume=resume)
        for name in controls:
            control = settings.control(name, steps=record["result"]["steps"])
            _train_one(control, cache, name, (), resume=resume or RunFolder(control.run).exists())
    return record


def _require_fit(cache: Cache, settings: TrainSettings) -> None:
    """Find out before the first step whether a student can be trained from this cache."""
    if settings.layer_read is not None and settings.layer_read not in cache.layers:
        held = ",".join(map(str, cache.layers))
        raise InputError(
            f"{cache.address}: holds layer {held}, not layer {settings.layer}; extract with --layers {held},{settings.layer}"
        )
    student_body(settings.student, settings.condition, int(cache.lengths.max()))


def _train_one(settings: TrainSettings, cache: Cache, title: str, controls: Sequence[str], *, resume: bool) -> dict[str, Any]:
    folder = RunFolder(settings.run)
    record = new_record(settings, cache, controls)
    if (earlier := earlier_record(folder, record, resume=resume)) is not None:
        record["controls"] = sorted({*earlier["controls"], *controls})
        if earlier["finished"]:
            if record["controls"] != earlier["controls"]:
                folder.write_record(earlier | {"controls": record["controls"]})
            return earlier
    try:
        train_rows, validation_rows = split_rows(cache.row_ids, validation=settings.validation, seed=settings.seed)
    except ValueError as error:
        raise InputError(f"{cache.address}: {error}; extract more rows, or change --validation") from error
    tokenizer = load_same_tokenizer(cache.attachment("tokenizer"), cache.identity["tokenizer"])
    set_seed(settings.seed)
    model = _build(settings, cache, tokenizer)
    optimizer = build_optimizer(
        model, bridge_lr=settings.bridge_lr, gpt_neo_lr=settings.gpt_neo_lr, weight_decay=settings.weight_decay
    )
    share = own_share()
    arguments = training_arguments(settings, folder, processes=share.processes)
    checkpoint = folder.last_checkpoint() if resume else None
    arguments.distributed_state.wait_for_everyone()  # what all have looked at, one may change
    if share.rank == 0:
        folder.root.mkdir(parents=True, exist_ok=True)
        folder.write_record(record)
        folder.continue_from(checkpoint)
    arguments.distributed_state.wait_for_everyone()
    training = order_of(cache, train_rows, settings.size_of_batches, settings.seed)
    validation = order_of(cache, validation_rows, settings.size_of_batches, settings.seed)

    def loader(rows: Sequence[int], batches: TrainingBatches | ValidationBatches) -> CachedBatches:
        features = CachedFeatures(cache, rows, settings.layer_read)
        workers, pinned = arguments.dataloader_num_workers, arguments.dataloader_pin_memory
        return CachedBatches(features, batches, workers=workers, pinned=pinned)

    decoder = StatesDecoder(None if settings.layer_read is None else cache.codecs[settings.layer_read])
    require_no_teacher(model, decoder)
    with progress_bar(*progress_columns()) as progress:
        trainer = StudentTrainer(
            model,
            arguments,
            training=loader(train_rows, TrainingBatches(training, settings.accumulate or 1, share)),
            validation=loader(validation_rows, ValidationBatches(validation, share)),
            optimizers=(optimizer, None),
            decoder=decoder,
            callbacks=training_callbacks(settings, folder, checkpoint, progress, title),
        )
        for default in (ProgressCallback, PrinterCallback):
            trainer.remove_callback(default)
        outcome = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    require_no_teacher(model, decoder)
    if share.rank == 0:
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
            "loaded": loaded_rooms(),
        },
    }
    if share.rank == 0:
        folder.write_record(record)
    return record


def _build(settings: TrainSettings, cache: Cache, tokenizer: PreTrainedTokenizerBase) -> LLMModulesForCausalLM:
    end, pad = cache.manifest.end_token_id, tokenizer.pad_token_id
    model = build_student(
        settings.student,
        vocab_size=cache.manifest.vocab_size,
        longest=int(cache.lengths.max()),
        teacher_hidden_size=cache.hidden_size,
        teacher_layer=settings.layer,
        condition=settings.condition,
        cross_attention=settings.cross_attention,
        eos_token_id=end,
        pad_token_id=pad if isinstance(pad, int) else end,
        head_tokens=read_vocabulary(cache.attachment(VOCABULARY)) if settings.vocab == "dataset" else None,
    )
    model.config.use_cache = False  # no key-value cache in training; generation asks for one
    return model


def _save_model(folder: RunFolder, model: LLMModulesForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    staged = folder.root / "model.partial"
    shutil.rmtree(staged, ignore_errors=True)
    model.config.use_cache = True
    model.generation_config.use_cache = True
    model.save_pretrained(staged)
    tokenizer.save_pretrained(staged)
    shutil.rmtree(folder.model, ignore_errors=True)
    staged.rename(folder.model)
