"""Prepare a run: student, batches, optimiser."""

from __future__ import annotations

from dataclasses import dataclass

from torch.optim import AdamW
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainingArguments, set_seed

from cache import Cache
from pipeline.batches.decoder import StatesDecoder
from pipeline.batches.examples import CachedExamples
from pipeline.batches.loader import CachedBatches
from pipeline.batches.order import order_of
from pipeline.batches.sampler import TrainingBatches, ValidationBatches
from pipeline.model import LLMModulesForCausalLM
from pipeline.processes import Share
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.runs.examples import (
    examples_of,
    left_out_of,
    students_tokenizer,
    teachers_tokenizer,
)
from pipeline.runs.folder import RunFolder
from pipeline.runs.rows import rows_of
from pipeline.runs.settings import TrainSettings
from pipeline.training.arguments import find_reporter, training_arguments
from pipeline.training.distillation import TeachersPredictions
from pipeline.training.new_student import build_optimizer, new_student
from pipeline.training.states_norm import fit_norms


@dataclass(frozen=True)
class PreparedRun:
    """Everything that one process needs to start a run, with its share of the batches.

    Attributes:
        left_out: number of examples used for neither training nor validation, by reason.
    """

    tokenizer: PreTrainedTokenizerBase
    teachers_tokenizer: PreTrainedTokenizerBase
    left_out: dict[str, int]
    model: LLMModulesForCausalLM
    optimizer: AdamW
    arguments: TrainingArguments
    training: CachedBatches
    validation: CachedBatches
    decoder: StatesDecoder
    predictions: TeachersPredictions | None
    reporters: list[TrainerCallback]


def prepare_run(
    cache: Cache, settings: TrainSettings, share: Share, progress: Progress = NO_PROGRESS
) -> PreparedRun:
    """Build the student, its batches and its optimiser.

    Args:
        cache: to train from.
        settings: of the run.
        share: which process this is.
        progress: counts the rows whose answers are tokenised.

    Raises:
        InputError: there are too few examples, no such student, device or reporter, or the batches
            cannot be divided among the processes.
    """
    train_rows, validation_rows = rows_of(cache, settings)
    tokenizer = students_tokenizer(settings, cache)
    arguments = training_arguments(settings, RunFolder(settings.run), processes=share.processes)
    reporters = [find_reporter(name) for name in settings.report_to] if share.rank == 0 else []
    learned, held_out = (
        examples_of(settings, cache, rows, tokenizer, progress)
        for rows in (train_rows, validation_rows)
    )
    set_seed(settings.seed)
    model = new_student(settings, cache, tokenizer, (learned, held_out))
    decoder = StatesDecoder(
        [cache.codecs[layer] for layer in settings.layers_used],
        read=len(settings.layers_read),
        predicts=settings.distilled_layer,
    )
    fit_norms(model, learned, decoder, settings.seed)
    training, validation = _loaders(settings, cache, learned, held_out, arguments, share)
    return PreparedRun(
        tokenizer=tokenizer,
        teachers_tokenizer=teachers_tokenizer(cache),
        left_out=left_out_of(settings, (learned, held_out)),
        model=model,
        optimizer=build_optimizer(
            model,
            bridge_lr=settings.bridge_lr,
            student_lr=settings.student_lr,
            weight_decay=settings.weight_decay,
        ),
        arguments=arguments,
        training=training,
        validation=validation,
        decoder=decoder,
        predictions=(
            TeachersPredictions(model, cache, settings.distill) if settings.distill else None
        ),
        reporters=reporters,
    )


def _loaders(
    settings: TrainSettings,
    cache: Cache,
    learned: CachedExamples,
    held_out: CachedExamples,
    arguments: TrainingArguments,
    share: Share,
) -> tuple[CachedBatches, CachedBatches]:
    training, validation = (
        order_of(cache, examples.indices, examples.sizes, settings.size_of_batches, settings.seed)
        for examples in (learned, held_out)
    )
    batches_per_step = arguments.gradient_accumulation_steps * share.processes
    samplers = (
        (learned, TrainingBatches(training, batches_per_step, share)),
        (held_out, ValidationBatches(validation, share)),
    )
    training_loader, validation_loader = (
        CachedBatches(
            examples,
            sampler,
            workers=arguments.dataloader_num_workers,
            pinned=arguments.dataloader_pin_memory,
        )
        for examples, sampler in samplers
    )
    return training_loader, validation_loader
