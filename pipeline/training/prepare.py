"""Everything before the first step: the student, its batches, its optimiser. Bad input is found here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.optim import AdamW
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainingArguments, set_seed

from cache import Cache, CacheError
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
from pipeline.processes import Share
from pipeline.training.arguments import find_reporter, training_arguments
from pipeline.training.head_init import start_head
from pipeline.training.run_folder import RunFolder
from pipeline.training.settings import TrainSettings


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to begin in this process, which takes its share of the batches."""

    tokenizer: PreTrainedTokenizerBase
    model: LLMModulesForCausalLM
    optimizer: AdamW
    arguments: TrainingArguments
    training: CachedBatches
    validation: CachedBatches
    decoder: StatesDecoder
    reporters: list[TrainerCallback]


def require_fit(cache: Cache, settings: TrainSettings) -> None:
    """Find out whether a student can be trained from a cache.

    Raises:
        InputError: the cache lacks a layer, there is no such student, or nothing of it is to be trained.
    """
    if missing := [layer for layer in settings.layers_read if layer not in cache.layers]:
        held = ",".join(map(str, cache.layers))
        raise InputError(
            f"{cache.address}: holds layer {held}, not layer {missing[0]}; extract with --layers {held},{missing[0]}"
        )
    if not settings.trained_parts:
        raise InputError(f"--freeze {' --freeze '.join(settings.freeze)}: nothing is left to train")
    body = student_body(settings.student, settings.condition, int(cache.lengths.max()))
    if settings.condition == "sequence":
        settings.bridge.require_possible(body.hidden_size)


def prepare_run(cache: Cache, settings: TrainSettings, share: Share) -> PreparedRun:
    """Build the student and what feeds it.

    Raises:
        InputError: too few examples, no such student, device or reporter, or batches that cannot be dealt out.
    """
    try:
        train_rows, validation_rows = split_rows(cache.row_ids, validation=settings.validation, seed=settings.seed)
    except ValueError as error:
        raise InputError(f"{cache.address}: {error}; extract more rows, or change --validation") from error
    tokenizer = load_same_tokenizer(cache.attachment("tokenizer"), cache.identity["tokenizer"])
    arguments = training_arguments(settings, RunFolder(settings.run), processes=share.processes)
    reporters = [find_reporter(name) for name in settings.report_to] if share.rank == 0 else []
    set_seed(settings.seed)
    model = _build(settings, cache, tokenizer)
    if settings.head_init == "teacher":
        start_head(model, cache, settings)
    for part in settings.freeze:
        _part(model, part).requires_grad_(False)

    def loader(rows: Sequence[int], batches: TrainingBatches | ValidationBatches) -> CachedBatches:
        features = CachedFeatures(cache, rows, settings.layers_read)
        workers, pinned = arguments.dataloader_num_workers, arguments.dataloader_pin_memory
        return CachedBatches(features, batches, workers=workers, pinned=pinned)

    training = order_of(cache, train_rows, settings.size_of_batches, settings.seed)
    validation = order_of(cache, validation_rows, settings.size_of_batches, settings.seed)
    return PreparedRun(
        tokenizer,
        model,
        build_optimizer(model, bridge_lr=settings.bridge_lr, gpt_neo_lr=settings.gpt_neo_lr, weight_decay=settings.weight_decay),
        arguments,
        loader(train_rows, TrainingBatches(training, arguments.gradient_accumulation_steps * share.processes, share)),
        loader(validation_rows, ValidationBatches(validation, share)),
        StatesDecoder([cache.codecs[layer] for layer in settings.layers_read]),
        reporters,
    )


def build_optimizer(model: LLMModulesForCausalLM, *, bridge_lr: float, gpt_neo_lr: float, weight_decay: float) -> AdamW:
    """AdamW with one learning rate for GPT-Neo and one for what is new around it (bridge, LM head)."""
    trained = [(name.startswith("body."), weights) for name, weights in model.named_parameters() if weights.requires_grad]
    body, around = [weights for of_body, weights in trained if of_body], [weights for of_body, weights in trained if not of_body]
    groups = [{"params": around, "lr": bridge_lr}, {"params": body, "lr": gpt_neo_lr}]
    return AdamW([group for group in groups if group["params"]], lr=bridge_lr, weight_decay=weight_decay)


def _part(model: LLMModulesForCausalLM, name: str) -> nn.Module:
    part: nn.Module | None = {"gpt-neo": model.body, "bridge": model.bridge, "head": model.lm_head}[name]
    return part if part is not None else nn.Module()  # without a teacher there is no bridge


def _occurring(cache: Cache) -> list[int]:
    try:
        return [token for token in read_vocabulary(cache.attachment(VOCABULARY)) if token < cache.manifest.vocab_size]
    except CacheError as error:
        raise InputError(f"{cache.address}: does not list the tokens that occur (--vocab dataset); extract again") from error


def _build(settings: TrainSettings, cache: Cache, tokenizer: PreTrainedTokenizerBase) -> LLMModulesForCausalLM:
    end, pad = cache.manifest.end_token_id, tokenizer.pad_token_id
    model = build_student(
        settings.student,
        vocab_size=cache.manifest.vocab_size,
        longest=int(cache.lengths.max()),
        teacher_hidden_size=cache.hidden_size,
        condition=settings.condition,
        bridge=settings.bridge,
        eos_token_id=end,
        pad_token_id=pad if isinstance(pad, int) else end,
        head_tokens=_occurring(cache) if settings.vocab == "dataset" else None,
    )
    model.config.use_cache = False  # no key-value cache in training; generation asks for one
    return model
