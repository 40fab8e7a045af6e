"""Everything before the first step: the student, its batches, its optimiser. Bad input is found
here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn
from torch.optim import AdamW
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainingArguments, set_seed

from cache import Cache, CacheError
from pipeline.batches.decoder import StatesDecoder
from pipeline.batches.examples import CachedExamples
from pipeline.batches.loader import CachedBatches
from pipeline.batches.order import order_of
from pipeline.batches.sampler import TrainingBatches, ValidationBatches
from pipeline.data.student_tokens import begin_token
from pipeline.data.transcript import transcript_of
from pipeline.data.vocabulary import VOCABULARY, kept_head, read_vocabulary
from pipeline.errors import InputError
from pipeline.model import LLMModulesForCausalLM, build_student, student_body
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
from pipeline.shapes import SIZES
from pipeline.training.arguments import find_reporter, training_arguments
from pipeline.training.distillation import TeachersPredictions
from pipeline.training.head_init import start_head


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to begin in this process, which takes its share of the batches.

    `left_out` counts what the student does not learn from or is not measured on, by reason.
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


def require_fit(cache: Cache, settings: TrainSettings) -> None:
    """Find out whether a student can be trained from a cache.

    Raises:
        InputError: the cache lacks a layer, there is no such student, or nothing of it is to be
            trained.
    """
    settings.require_states_of(cache.address, cache.manifest)
    settings.require_sense()
    if settings.distill:
        kept_head(cache, "--distill")
    body = student_body(
        settings.student, settings.condition, 1 if settings.own_tokens else int(cache.lengths.max())
    )
    if settings.reads_states:
        settings.conditioning.require_bridge(settings.bridge, body)
    if settings.own_tokens:
        tokenizer = students_tokenizer(settings, cache)
        if not any(transcript_of(cache, index).answers for index in range(len(cache))):
            raise InputError(
                f"{cache.address}: holds plain text, and --condition prompt and text learn what"
                " answers say"
            )
        if settings.student not in SIZES:  # a new one gets as many positions as are needed
            lengths = examples_of(
                replace(settings, layers=()), cache, range(len(cache)), tokenizer
            ).lengths
            student_body(settings.student, settings.condition, max(lengths))


def prepare_run(
    cache: Cache, settings: TrainSettings, share: Share, progress: Progress = NO_PROGRESS
) -> PreparedRun:
    """Build the student and what feeds it.

    Raises:
        InputError: too few examples, no such student, device or reporter, or batches that cannot be
            dealt out.
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
    model = _build(settings, cache, tokenizer, learned, held_out)
    if settings.head_init == "teacher":
        start_head(model, cache, settings)
    for part in settings.freeze:
        _part(model, part).requires_grad_(False)

    def loader(
        examples: CachedExamples, batches: TrainingBatches | ValidationBatches
    ) -> CachedBatches:
        workers, pinned = arguments.dataloader_num_workers, arguments.dataloader_pin_memory
        return CachedBatches(examples, batches, workers=workers, pinned=pinned)

    training, validation = (
        order_of(cache, examples.indices, examples.sizes, settings.size_of_batches, settings.seed)
        for examples in (learned, held_out)
    )
    return PreparedRun(
        tokenizer,
        teachers_tokenizer(cache),
        left_out_of(settings, (learned, held_out)),
        model,
        build_optimizer(
            model,
            bridge_lr=settings.bridge_lr,
            gpt_neo_lr=settings.gpt_neo_lr,
            weight_decay=settings.weight_decay,
        ),
        arguments,
        loader(
            learned,
            TrainingBatches(
                training, arguments.gradient_accumulation_steps * share.processes, share
            ),
        ),
        loader(held_out, ValidationBatches(validation, share)),
        StatesDecoder(
            [cache.codecs[layer] for layer in settings.layers_used],
            read=len(settings.layers_read),
            predicts=settings.layer_that_predicts,
        ),
        TeachersPredictions(model, cache, settings.distill) if settings.distill else None,
        reporters,
    )


def build_optimizer(
    model: LLMModulesForCausalLM, *, bridge_lr: float, gpt_neo_lr: float, weight_decay: float
) -> AdamW:
    """AdamW with one learning rate for GPT-Neo and one for what is new around it (bridge, LM
    head)."""
    trained = [
        (name.startswith("body."), weights)
        for name, weights in model.named_parameters()
        if weights.requires_grad
    ]
    body, around = (
        [weights for of_body, weights in trained if of_body],
        [weights for of_body, weights in trained if not of_body],
    )
    groups = [{"params": around, "lr": bridge_lr}, {"params": body, "lr": gpt_neo_lr}]
    return AdamW(
        [group for group in groups if group["params"]], lr=bridge_lr, weight_decay=weight_decay
    )


def _part(model: LLMModulesForCausalLM, name: str) -> nn.Module:
    parts: dict[str, nn.Module] = {
        "gpt-neo": model.body,
        "bridge": model.bridge,
        "head": model.lm_head,
    }
    return parts[name]


def _occurring(cache: Cache, examples: Sequence[CachedExamples]) -> list[int]:
    """The tokens that a head over the data set's own spans, ascending."""
    occurring = [each.occurring for each in examples]
    if all(tokens is not None for tokens in occurring):
        return sorted({token for tokens in occurring for token in tokens or ()})
    try:
        return [
            token
            for token in read_vocabulary(cache.attachment(VOCABULARY))
            if token < cache.manifest.vocab_size
        ]
    except CacheError as error:
        raise InputError(
            f"{cache.address}: does not list the tokens that occur (--vocab dataset); extract again"
        ) from error


def _build(
    settings: TrainSettings,
    cache: Cache,
    tokenizer: PreTrainedTokenizerBase,
    *examples: CachedExamples,
) -> LLMModulesForCausalLM:
    own, pad = settings.own_tokens, tokenizer.pad_token_id
    end = int(tokenizer.eos_token_id) if own else cache.manifest.end_token_id
    model = build_student(
        settings.student,
        new_weights=settings.new_weights,
        vocab_size=len(tokenizer) if own else cache.manifest.vocab_size,
        longest=max(max(each.lengths) for each in examples) if own else int(cache.lengths.max()),
        teacher_hidden_size=cache.hidden_size,
        condition=settings.condition,
        bridge=settings.bridge,
        bos_token_id=begin_token(tokenizer) if own else None,
        eos_token_id=end,
        pad_token_id=pad if isinstance(pad, int) else end,
        head_tokens=_occurring(cache, examples) if settings.vocab == "dataset" else None,
    )
    model.config.use_cache = False  # no key-value cache in training; generation asks for one
    return model
