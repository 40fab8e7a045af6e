"""The data set of each condition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from cache import Cache
from pipeline.batches.answers import CachedAnswers
from pipeline.batches.examples import CachedExamples
from pipeline.batches.whole_examples import WholeExamples
from pipeline.data.alignment import TeacherReading
from pipeline.progress import NO_PROGRESS, Progress


@dataclass(frozen=True)
class DatasetOptions:
    """The options of a data set.

    Attributes:
        cache: has the examples.
        rows: indices of the examples.
        layers: cached layers to read.
        tokenizer: the student's.
        prompt_text: with `prompt`: also read the prompts, in student tokens.
        aligned_with: how the teacher read the prompts, to align student tokens with its states.
        longest: maximum student tokens of an answer; longer ones are left out.
        progress: counts tokenised examples.
    """

    cache: Cache
    rows: Sequence[int]
    layers: Sequence[int]
    tokenizer: PreTrainedTokenizerBase
    prompt_text: bool = False
    aligned_with: TeacherReading | None = None
    longest: int | None = None
    progress: Progress = NO_PROGRESS


def _whole_examples(options: DatasetOptions) -> CachedExamples:
    return WholeExamples(options.cache, options.rows, options.layers)


def _answers(options: DatasetOptions) -> CachedExamples:
    return CachedAnswers(
        options.cache,
        options.rows,
        options.layers,
        options.tokenizer,
        with_prompts=options.prompt_text,
        aligned_with=options.aligned_with,
        longest=options.longest,
        progress=options.progress,
    )


def _answers_with_prompts(options: DatasetOptions) -> CachedExamples:
    return _answers(replace(options, prompt_text=True))


DATASETS: dict[str, Callable[[DatasetOptions], CachedExamples]] = {
    "sequence": _whole_examples,
    "prompt": _answers,
    "none": _whole_examples,
    "text": _answers_with_prompts,
}
