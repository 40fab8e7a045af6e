"""The prompts of an evaluation: held-out rows, with their references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from cache import Cache
from pipeline.data.conversations import Conversation, Turn
from pipeline.data.sources import load_conversations
from pipeline.data.templates import TemplateName
from pipeline.data.tokenizer import load_verified_tokenizer
from pipeline.data.tokens import tokenize_prompt
from pipeline.data.transcript import transcript_of
from pipeline.errors import InputError, RowError
from pipeline.evaluation.open_runs import OpenRun, open_runs
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.generation.prompts import tokens_before
from pipeline.model import LLMModulesConfig
from pipeline.runs.examples import teachers_tokenizer
from pipeline.runs.folder import RunFolder
from pipeline.runs.rows import rows_of


@dataclass(frozen=True)
class HeldOutPrompts:
    """The prompts to answer.

    Attributes:
        conversations: each ends with the reference answer.
        left_out: number of rows that were left out, by reason.
        all_references: answers of all rows that the prompts were chosen from.
    """

    conversations: list[Conversation] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    all_references: tuple[str, ...] = ()


def require_prompts(settings: EvaluateSettings) -> None:
    """Require what `held_out_prompts` does, of the student and existing comparison runs.

    Raises:
        InputError: as `held_out_prompts`.
    """
    folder = RunFolder(settings.run)
    with open_runs(folder, settings.cache, settings.random_teacher) as runs:
        held_out_prompts(settings, runs, *rows_of(runs[0].cache, runs[0].settings))


def held_out_prompts(
    settings: EvaluateSettings,
    runs: Sequence[OpenRun],
    training_rows: Sequence[int],
    validation_rows: Sequence[int],
) -> HeldOutPrompts:
    """Return rows of another data set, or the run's own validation rows, as prompts.

    Raises:
        InputError: the data set cannot be read, or the students' context is too short.
    """
    if not settings.samples:
        return HeldOutPrompts()
    cache = runs[0].cache
    rows, malformed = _rows(settings, cache, validation_rows)
    readers = [_Reader(run, settings.max_new_tokens) for run in runs]
    contexts = [reader.context for reader in readers if reader.context is not None]
    if contexts and settings.max_new_tokens >= (context := min(contexts)):
        raise InputError(
            f"--max-new-tokens {settings.max_new_tokens}: these students read {context} tokens;"
            " choose a smaller number"
        )

    def too_long(row: Conversation) -> str | None:
        reasons = (reader.too_long(row) for reader in readers)
        return next((reason for reason in reasons if reason is not None), None)

    chosen = unseen_prompts(
        rows, cached_rows(cache, training_rows), too_long=too_long, count=settings.samples
    )
    return replace(
        chosen,
        left_out=chosen.left_out | ({"malformed": malformed} if malformed else {}),
        all_references=tuple(row.reference for row in rows),
    )


def _rows(
    settings: EvaluateSettings, cache: Cache, validation_rows: Sequence[int]
) -> tuple[list[Conversation], int]:
    """Return the rows to choose from, and the number of malformed ones."""
    if settings.dataset is None:
        return list(cached_rows(cache, validation_rows)), 0
    loaded = load_conversations(
        settings.dataset, config=settings.dataset_config, split=settings.split, skip_bad_rows=True
    )
    return loaded.conversations, loaded.malformed


def cached_rows(cache: Cache, indices: Iterable[int]) -> Iterator[Conversation]:
    """Yield the conversations of examples.

    Raises:
        InputError: the cache has no transcripts.
    """
    for index in indices:
        yield Conversation(cache.row_ids[index], transcript_of(cache, index).turns)


class _Reader:
    """The context lengths of a student and its teacher."""

    def __init__(self, run: OpenRun, max_new_tokens: int) -> None:
        self._config = LLMModulesConfig.from_pretrained(run.folder.model, trust_remote_code=False)
        self._tokenizer = load_verified_tokenizer(
            run.folder.model, run.record.identity.student_tokenizer
        )
        self._teacher_tokenizer = teachers_tokenizer(run.cache)
        self._template: TemplateName = run.cache.identity["template"]
        self._teacher_context = int(run.cache.identity["max_tokens"])
        self._max_new_tokens = max_new_tokens
        self.context = self._config.positions

    def too_long(self, row: Conversation) -> str | None:
        """Return why a prompt is too long; None if it is not."""
        if self._config.reads_states:
            prompt = tokenize_prompt(row.prompt_turns, self._template, self._teacher_tokenizer)
            if len(prompt) > self._teacher_context:
                return f"prompts over {self._teacher_context} teacher tokens"
        before = tokens_before(row.prompt_turns, self._config, self._template, self._tokenizer)
        if self.context is not None and len(before) + self._max_new_tokens > self.context:
            return f"prompts over {self.context - self._max_new_tokens} tokens"
        return None


def unseen_prompts(
    rows: Sequence[Conversation],
    trained_on: Iterable[Conversation],
    *,
    too_long: Callable[[Conversation], str | None],
    count: int,
) -> HeldOutPrompts:
    """Return the first `count` rows whose prompt precedes no answer of a training example.

    Prompts are compared by their turns, regardless of their files.

    Args:
        rows: to choose from.
        trained_on: the student's training rows.
        too_long: returns why a row is too long for the students; None if it is not.
        count: number of rows to return.
    """
    seen = {
        row.turns[:place]
        for row in trained_on
        for place, turn in enumerate(row.turns)
        if turn.is_answer
    }
    chosen: list[Conversation] = []
    left_out = Counter[str]()
    for row in rows:
        if len(chosen) == count:
            break
        if reason := _unusable(row, seen, too_long):
            left_out[reason] += 1
        else:
            chosen.append(row)
    return HeldOutPrompts(chosen, dict(left_out))


def _unusable(
    row: Conversation,
    seen: set[tuple[Turn, ...]],
    too_long: Callable[[Conversation], str | None],
) -> str | None:
    """Return why a row cannot be a prompt for the students, None if it can."""
    if not row.prompt_turns:
        return "no prompt (plain text)"
    if row.prompt_turns in seen:
        return "was trained on"
    try:
        return too_long(row)
    except RowError as error:
        return error.kind
