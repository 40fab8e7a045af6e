"""A training run from a cache: the student, and its comparison runs at equal steps and tokens. No
teacher anywhere."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file
from transformers import PrinterCallback, ProgressCallback, TrainerState

from cache import Cache, open_cache
from cache.storage import LocationLike
from pipeline.data.split import MIN_HELD_OUT
from pipeline.errors import InputError
from pipeline.model import LLMModulesForCausalLM
from pipeline.processes import own_share
from pipeline.progress import NO_PROGRESS, progress_bar, shown_progress, tell
from pipeline.runs.comparisons import RANDOM_TEACHER, comparison_settings, kind_of, why_impossible
from pipeline.runs.examples import students_hash
from pipeline.runs.folder import RunFolder, forget_peak_memory, is_over, peak_memory
from pipeline.runs.record import earlier_record, new_record
from pipeline.runs.rows import describe_groups, rows_of
from pipeline.runs.settings import TrainSettings
from pipeline.training.absence import loaded_rooms, require_no_teacher
from pipeline.training.arguments import training_callbacks
from pipeline.training.callbacks import Stopwatch, progress_columns
from pipeline.training.prepare import PreparedRun, prepare_run, require_fit
from pipeline.training.trainer import StudentTrainer


def train(
    settings: TrainSettings,
    *,
    comparisons: Sequence[str] = (),
    random_teacher: LocationLike | None = None,
    resume: bool = False,
    options: str = "",
) -> dict[str, Any]:
    """Train a student from a cache, then its comparison runs; returns the student's record (run.json).

    Where torchrun has started several processes, all call this, and train together.

    Args:
        settings: of the student.
        comparisons: names of the comparison runs (see `pipeline.runs.comparisons`).
        random_teacher: the cache of a teacher of random weights, for the control of that name.
        resume: go on with what was begun.
        options: the command's, kept beside the run as what repeats it.

    Raises:
        CacheError: there is no whole cache there, or it is damaged.
        InputError: the cache lacks the layer, the run exists (or differs from what is resumed), no
            such student.
        RunError: the loss is not finite, or another model's weights are in memory.
    """
    settings.require_comparisons(comparisons)
    settings = replace(settings, accumulate=settings.batches_a_step(own_share().processes))
    with open_cache(settings.cache) as cache:
        require_fit(cache, settings)
        if own_share().rank == 0 and (together := describe_groups(cache)):
            tell(together)
        if comparisons and own_share().rank == 0:
            _tell_if_too_few(cache, settings)
        for name in comparisons:
            _require_comparison(
                settings,
                cache,
                name,
                comparison_settings(settings, name, steps=1, random_teacher=random_teacher),
            )
        asked = [name for name in comparisons if kind_of(name) != "baseline"]
        in_all = len(comparisons) + 1
        title = f"student (1 of {in_all})" if comparisons else "student"
        record = _train_one(settings, cache, title, asked, resume=resume, options=options)
        for number, name in enumerate(comparisons, start=2):
            own = comparison_settings(
                settings, name, steps=record["result"]["steps"], random_teacher=random_teacher
            )
            with _opened(own, settings, cache) as read:
                title = f"{name} ({number} of {in_all})"
                _train_one(own, read, title, (), resume=resume or RunFolder(own.run).exists())
            record["comparisons"] = sorted(
                {*record["comparisons"], name}
            )  # a baseline that was stopped is not missed
            if own_share().rank == 0:
                RunFolder(settings.run).write_record(record)
        if comparisons and own_share().rank == 0:
            RunFolder(settings.run).write_options(
                options
            )  # those that a run was begun with may have named none
    return record


def _tell_if_too_few(cache: Cache, settings: TrainSettings) -> None:
    rows = len(cache)
    if rows < 2:  # is refused in a moment
        return
    held_out = len(rows_of(cache, settings)[1])
    if held_out < MIN_HELD_OUT:
        share = math.ceil(100 * MIN_HELD_OUT / rows) / 100
        mend = f"more rows, or --validation {share}" if share <= 0.5 else "more rows"
        tell(
            f"{held_out} of {rows} rows are held out; from fewer than {MIN_HELD_OUT} `evaluate`"
            f" gives no verdict: take {mend}"
        )


def unfit_comparisons(settings: TrainSettings, names: Sequence[str]) -> dict[str, str]:
    """The names of comparison runs that a finished student cannot have, each with the reason."""
    reasons = {}
    with open_cache(settings.cache) as cache:
        for name in names:
            try:
                _require_comparison(
                    settings, cache, name, comparison_settings(settings, name, steps=1)
                )
            except InputError as error:
                reasons[name] = why_impossible(settings, name) or str(error).removeprefix(
                    f"{name}: "
                )
    return reasons


def _opened(
    own: TrainSettings, settings: TrainSettings, cache: Cache
) -> AbstractContextManager[Cache]:
    """A comparison run's cache: most often the student's, which is open already."""
    return nullcontext(cache) if own.cache == settings.cache else open_cache(own.cache)


def _require_comparison(
    settings: TrainSettings, cache: Cache, name: str, own: TrainSettings
) -> None:
    """Find out whether a comparison run can be trained.

    Raises:
        InputError: it cannot, or the cache of its own is not of random weights, or of other
            examples than the student's.
    """
    with _opened(own, settings, cache) as read:
        require_fit(read, own)
        if name == RANDOM_TEACHER and not str(read.identity["teacher_weights"]).startswith(
            "random:"
        ):
            raise InputError(
                f"--random-teacher {read.address}: its teacher is not random; extract with"
                " --teacher random:SEED:T"
            )
        if read.identity["tokens"] != cache.identity["tokens"]:
            raise InputError(
                f"{read.address}: was made of other examples than {cache.address}; extract the same"
                " rows for it"
            )


def _train_one(
    settings: TrainSettings,
    cache: Cache,
    title: str,
    comparisons: Sequence[str],
    *,
    resume: bool,
    options: str = "",
) -> dict[str, Any]:
    folder, share = RunFolder(settings.run), own_share()
    record = new_record(settings, cache, comparisons, students_hash(settings, cache))
    if (earlier := earlier_record(folder, record, resume=resume)) is not None:
        record["comparisons"] = sorted({*earlier["comparisons"], *comparisons})
        if earlier["finished"]:
            if record["comparisons"] != earlier["comparisons"] and share.rank == 0:
                folder.write_record(earlier | {"comparisons": record["comparisons"]})
            return earlier
    columns = (
        TextColumn(f"{title}: {{task.description}}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with shown_progress(*columns) as shown:
        progress = shown if share.rank == 0 else NO_PROGRESS
        prepared = prepare_run(cache, settings, share, progress)
    require_no_teacher()
    forget_peak_memory()
    checkpoint = folder.last_checkpoint() if resume else None
    together = prepared.arguments.distributed_state
    together.wait_for_everyone()  # what all have looked at, one may change
    if share.rank == 0:
        folder.root.mkdir(parents=True, exist_ok=True)
        folder.write_record(record)
        if not folder.options.exists():
            folder.write_options(options)
        folder.continue_from(checkpoint)
    together.wait_for_everyone()
    with progress_bar(*progress_columns()) as bar:
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
        seconds = _go_on(trainer, checkpoint)
    require_no_teacher()
    record |= {
        "finished": True,
        "left_out": prepared.left_out,
        "result": {
            "steps": trainer.state.global_step,
            "epochs": trainer.state.epoch,
            "tokens": trainer.state.num_input_tokens_seen,
            "best_step": trainer.state.best_global_step,
            "best_val_loss": trainer.state.best_metric,
            "seconds": seconds,
            "parameters": prepared.model.num_parameters(),
            "peak_memory": peak_memory(),
            "loaded": loaded_rooms(),
        },
    }
    if share.rank == 0:
        _save_model(folder, prepared)
        folder.write_record(record)
    return record


def _go_on(trainer: StudentTrainer, checkpoint: Path | None) -> float:
    """Train to the end, which may be behind already; the student is then the best one. Gives the
    seconds that all of it took."""
    if trainer.args.max_steps == 0:  # taken as it is
        trainer.state.best_metric = trainer.evaluate()["eval_loss"]
        trainer.state.best_global_step, trainer.state.epoch = 0, 0
        return 0.0
    if checkpoint is None or not is_over(checkpoint):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return next(
            each.seconds
            for each in trainer.callback_handler.callbacks
            if isinstance(each, Stopwatch)
        )
    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    best = trainer.state.best_model_checkpoint
    assert isinstance(trainer.model, LLMModulesForCausalLM)
    found = trainer.model.load_state_dict(
        load_file(Path(best or checkpoint) / "model.safetensors"), strict=False
    )
    tied = {"lm_head.weight"} if trainer.model.config.tie_word_embeddings else set()
    assert not found.unexpected_keys and set(found.missing_keys) <= tied
    kept: Any = trainer.state.stateful_callbacks
    return float(kept[Stopwatch.__name__]["args"]["seconds"])


def _save_model(folder: RunFolder, prepared: PreparedRun) -> None:
    model, staged = prepared.model, folder.root / "model.partial"
    shutil.rmtree(staged, ignore_errors=True)
    model.config.use_cache = True
    model.generation_config.use_cache = True
    model.save_pretrained(staged)
    prepared.tokenizer.save_pretrained(staged)
    if model.config.own_tokens:
        prepared.teachers_tokenizer.save_pretrained(staged / folder.teachers_tokenizer.name)
    shutil.rmtree(folder.model, ignore_errors=True)
    staged.rename(folder.model)
