"""Everything before the first step: the student, its batches, its optimiser. Bad input is found here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch.optim import AdamW
from transformers import PreTrainedTokenizerBase, TrainingArguments, set_seed

from cache import Cache
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
from pipeline.training.arguments import training_arguments
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


def require_fit(cache: Cache, settings: TrainSettings) -> None:
    """Find out whether a student can be trained from a cache.

    Raises:
        InputError: the cache lacks the layer, or there is no such student.
    """
    if settings.layer_read is not None and settings.layer_read not in cache.layers:
        held = ",".join(map(str, cache.layers))
        raise InputError(
            f"{cache.address}: holds layer {held}, not layer {settings.layer}; extract with --layers {held},{settings.layer}"
        )
    student_body(settings.student, settings.condition, int(cache.lengths.max()))


def prepare_run(cache: Cache, settings: TrainSettings, share: Share) -> PreparedRun:
    """Build the student and what feeds it.

    Raises:
        InputError: too few examples, no such student or device, or batches that cannot be dealt out.
    """
    try:
        train_rows, validation_rows = split_rows(cache.row_ids, validation=settings.validation, seed=settings.seed)
    except ValueError as error:
        raise InputError(f"{cache.address}: {error}; extract more rows, or change --validation") from error
    tokenizer = load_same_tokenizer(cache.attachment("tokenizer"), cache.identity["tokenizer"])
    arguments = training_arguments(settings, RunFolder(settings.run), processes=share.processes)
    set_seed(settings.seed)
    model = _build(settings, cache, tokenizer)

    def loader(rows: Sequence[int], batches: TrainingBatches | ValidationBatches) -> CachedBatches:
        features = CachedFeatures(cache, rows, settings.layer_read)
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
        StatesDecoder(None if settings.layer_read is None else cache.codecs[settings.layer_read]),
    )


def build_optimizer(model: LLMModulesForCausalLM, *, bridge_lr: float, gpt_neo_lr: float, weight_decay: float) -> AdamW:
    """AdamW with one learning rate for GPT-Neo and one for what is new around it (bridge, LM head)."""
    body = [parameter for name, parameter in model.named_parameters() if name.startswith("body.")]
    around = [parameter for name, parameter in model.named_parameters() if not name.startswith("body.")]
    groups = [{"params": around, "lr": bridge_lr}, {"params": body, "lr": gpt_neo_lr}]
    return AdamW(groups, lr=bridge_lr, weight_decay=weight_decay)


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
