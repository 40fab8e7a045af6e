"""Answer held-out prompts, and summarise the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.data.conversations import Conversation, Turn
from pipeline.evaluation.answer_scores import AnswerScores
from pipeline.evaluation.answers import has_form, repetition
from pipeline.evaluation.results import AnswerScore, Interval, Sample
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.generation.answers import Written
from pipeline.generation.settings import Sampling
from pipeline.progress import Progress

_SHOWN_SAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class AnswerFigures:
    """Figures of all answers of a run, as in `StudentResult`; None if not applicable."""

    score: AnswerScore | None = None
    exact_match: float | None = None
    exact_match_interval: Interval | None = None
    thought_solution_form: float | None = None
    stopped: float | None = None
    repetition: float | None = None
    generated_tokens_per_second: float | None = None


@dataclass(frozen=True)
class Answers:
    """The answers of a run to all prompts, in their order.

    Attributes:
        scores: of each answer; None if its reference cannot be scored.
    """

    written: list[Written] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)
    figures: AnswerFigures = AnswerFigures()


@dataclass(frozen=True)
class AnswerLine:
    """A line of `answers.jsonl`."""

    row_id: str
    student: str
    prompt: str
    reference: str
    answer: str
    score: float | None
    stopped: bool


def answer_prompts(
    name: str,
    write: Callable[[Sequence[Sequence[Turn]], Sampling], list[Written]],
    prompts: Sequence[Conversation],
    scores: AnswerScores,
    settings: EvaluateSettings,
    progress: Progress,
) -> Answers:
    """Answer prompts greedily, and score the answers.

    Args:
        name: of the run.
        write: generates answers.
        prompts: may be empty.
        scores: compares answers with references.
        settings: batch size and length of answers.
        progress: counts the prompts.

    Raises:
        InputError: a user-defined score fails.
    """
    if not prompts:
        return Answers()
    written = []
    write([prompts[0].prompt_turns], Sampling(max_new_tokens=1))  # lazy loading is not timed
    start_time = time.perf_counter()
    progress.stage(f"{name}: answers", len(prompts))
    for start in range(0, len(prompts), settings.batch_size):
        batch = [prompt.prompt_turns for prompt in prompts[start : start + settings.batch_size]]
        written += write(batch, Sampling(max_new_tokens=settings.max_new_tokens))
        progress.advance(len(batch))
    seconds = time.perf_counter() - start_time
    values = scores.score_answers([answer.text for answer in written])
    return Answers(written, values, _figures(written, values, prompts, scores, seconds))


def _figures(
    written: Sequence[Written],
    values: Sequence[float | None],
    prompts: Sequence[Conversation],
    scores: AnswerScores,
    seconds: float,
) -> AnswerFigures:
    texts = [answer.text for answer in written]
    mean = scores.mean(texts, values)
    right_or_wrong = None if scores.graded else mean
    form = None
    if any(has_form(prompt.reference) for prompt in prompts):
        form = sum(map(has_form, texts)) / len(texts)
    return AnswerFigures(
        score=mean,
        exact_match=right_or_wrong.value if right_or_wrong else None,
        exact_match_interval=right_or_wrong.interval if right_or_wrong else None,
        thought_solution_form=form,
        stopped=sum(answer.stopped for answer in written) / len(texts),
        repetition=sum(map(repetition, texts)) / len(texts),
        generated_tokens_per_second=round(sum(answer.tokens for answer in written) / seconds, 1),
    )


def answer_lines(
    prompts: Sequence[Conversation], answers: Mapping[str, Answers]
) -> list[AnswerLine]:
    """Return all answers of all runs, prompt by prompt."""
    return [
        AnswerLine(
            row_id=prompt.row_id,
            student=name,
            prompt=_prompt_text(prompt),
            reference=prompt.reference,
            answer=run_answers.written[index].text,
            score=run_answers.scores[index],
            stopped=run_answers.written[index].stopped,
        )
        for index, prompt in enumerate(prompts)
        for name, run_answers in answers.items()
        if run_answers.written
    ]


def shown_samples(prompts: Sequence[Conversation], answers: Mapping[str, Answers]) -> list[Sample]:
    """Return the first prompts with the answers of all runs."""
    answered = {name: run_answers for name, run_answers in answers.items() if run_answers.written}
    return [
        Sample(
            row_id=prompt.row_id,
            prompt=_prompt_text(prompt),
            reference=prompt.reference,
            answers={
                name: run_answers.written[index].text for name, run_answers in answered.items()
            },
            scores={name: run_answers.scores[index] for name, run_answers in answered.items()},
        )
        for index, prompt in enumerate(prompts[:_SHOWN_SAMPLES])
    ]


def _prompt_text(prompt: Conversation) -> str:
    """Return the prompt without its system turn; with roles if there are several turns."""
    turns = [turn for turn in prompt.prompt_turns if turn.role != "system"]
    if len(turns) == 1:
        return turns[0].text
    return "\n\n".join(f"{turn.role}: {turn.plain_text}" for turn in turns)
