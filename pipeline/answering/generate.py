"""Generate the answers of a plan that its journal lacks."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from pipeline.answering.journal import AnswerJournal
from pipeline.answering.prepare import AnswerPlan
from pipeline.device import deterministic, free_memory
from pipeline.errors import RunError, reason
from pipeline.generation.causal_lm import CausalLMWriter
from pipeline.progress import Progress
from pipeline.teacher.load import load_causal_lm


def generate_missing(plan: AnswerPlan, journal: AnswerJournal, progress: Progress) -> None:
    """Load the teacher, and add the missing answers to the journal batch by batch.

    Batches and seeds follow from the plan and the journal, so that an interrupted file continues as
    it would have without the interruption.

    Raises:
        InputError: the teacher cannot be loaded.
        RunError: memory is too small for one answer.
    """
    order = plan.order
    if len(journal.answers) == len(order):
        return
    progress.stage("load")
    model = load_causal_lm(plan.source, plan.device, plan.dtype)
    with deterministic(plan.device):
        writer = _writer(plan, model)
        progress.stage("answers", len(order) - len(journal.answers))
        while missing := order[len(journal.answers) :]:
            progress.advance(_next_batch(plan, missing, writer, journal))


def _writer(plan: AnswerPlan, model: PreTrainedModel) -> CausalLMWriter:
    """Return a writer that has read the tokens that all prompts begin with."""
    prompts, most = [prompt.ids for prompt in plan.prompts], plan.settings.max_new_tokens
    try:
        return CausalLMWriter(model, plan.tokenizer, plan.template, prompts, most)
    except torch.OutOfMemoryError as error:
        raise RunError(
            "the device's memory is too small for the tokens that all prompts begin with"
            f" ({reason(error)}); shorten the system prompt"
        ) from error


def _next_batch(
    plan: AnswerPlan, missing: list[int], writer: CausalLMWriter, journal: AnswerJournal
) -> int:
    """Write the next batch, halved until memory suffices; return the number of its answers."""
    size = min(journal.batch_size, len(missing))
    largest = journal.batch_size
    while True:
        batch = missing[:size]
        start_time = time.perf_counter()
        try:
            written = writer.write_after(
                [plan.prompt_of(number).ids for number in batch],
                replace(plan.settings, seed=plan.seed_of(batch[0])),
            )
        except torch.OutOfMemoryError as error:
            if size == 1:
                longest = len(plan.prompt_of(batch[0]).ids)
                raise RunError(
                    f"the device's memory is too small for a prompt of {longest} tokens and its"
                    f" answer ({reason(error)}); choose a smaller --max-new-tokens"
                ) from error
        else:
            journal.append(written, largest, time.perf_counter() - start_time)
            return size
        size = largest = size // 2
        free_memory()
