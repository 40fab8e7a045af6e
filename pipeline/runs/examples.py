"""The data set and tokenizers of a run."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from cache import Cache
from pipeline.batches.datasets import DATASETS, DatasetOptions
from pipeline.batches.examples import CachedExamples
from pipeline.data.alignment import TeacherReading
from pipeline.data.student_tokens import load_student_tokenizer, require_end_token
from pipeline.data.tokenizer import load_verified_tokenizer, tokenizer_hash
from pipeline.errors import InputError
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.runs.settings import TrainSettings
from pipeline.shapes import SIZES


def teachers_tokenizer(cache: Cache) -> PreTrainedTokenizerBase:
    """Return the teacher's tokenizer, which is stored with the cache.

    Raises:
        InputError: the installed libraries produce other tokens with it.
    """
    return load_verified_tokenizer(cache.attachment("tokenizer"), cache.identity["tokenizer"])


def students_tokenizer(settings: TrainSettings, cache: Cache) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a student: its own, or the teacher's.

    A new GPT-Neo has no tokenizer, and uses the teacher's unless another is named.

    Raises:
        InputError: there is no such tokenizer, or it has no end token.
    """
    if settings.own_tokens and settings.student_tokenizer is not None:
        return load_student_tokenizer(settings.student_tokenizer)
    if settings.own_tokens and settings.student not in SIZES:
        return load_student_tokenizer(settings.student)
    tokenizer = teachers_tokenizer(cache)
    return require_end_token(tokenizer, cache.address) if settings.own_tokens else tokenizer


def students_hash(settings: TrainSettings, cache: Cache) -> str:
    """Return the hash of the student's tokenizer (see `tokenizer_hash`).

    Raises:
        InputError: as `students_tokenizer`.
    """
    return (
        tokenizer_hash(students_tokenizer(settings, cache))
        if settings.own_tokens
        else str(cache.identity["tokenizer"])
    )


def examples_of(
    settings: TrainSettings,
    cache: Cache,
    rows: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress = NO_PROGRESS,
) -> CachedExamples:
    """Return the data set of a student from some rows of a cache.

    Args:
        settings: of the run.
        cache: has the rows.
        rows: indices of examples.
        tokenizer: the student's.
        progress: counts the rows whose answers are tokenised.

    Raises:
        InputError: no answer is short enough.
    """
    examples = DATASETS[settings.condition](
        DatasetOptions(
            cache=cache,
            rows=rows,
            layers=settings.layers_used,
            tokenizer=tokenizer,
            prompt_text=settings.prompt_text,
            aligned_with=(
                TeacherReading(cache.identity["template"], teachers_tokenizer(cache))
                if settings.aligns_states
                else None
            ),
            longest=settings.max_answer_tokens,
            progress=progress,
        )
    )
    if not len(examples):
        raise InputError(
            f"{cache.address}: of {len(rows)} rows no answer is left, {examples.left_out} are over"
            f" {settings.max_answer_tokens} tokens; raise --max-answer-tokens, or choose another"
            " --seed"
        )
    return examples


def positions_needed(examples: Sequence[CachedExamples]) -> int:
    """Return the number of positions that a decoder needs to read the longest example."""
    return max(max(dataset.lengths) for dataset in examples)


def left_out_of(settings: TrainSettings, examples: Sequence[CachedExamples]) -> dict[str, int]:
    """Return the number of examples left out, by reason."""
    count = sum(dataset.left_out for dataset in examples)
    return {f"answers over {settings.max_answer_tokens} tokens": count} if count else {}
