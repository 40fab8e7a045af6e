"""The prompts of an evaluation, each with the answer that the data set gives; none that the student
was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from cache import Cache
from pipeline.data.conversations import Conversation
from pipeline.data.sources import load_conversations
from pipeline.data.templates import TemplateName
from pipeline.data.tokenizer import load_verified_tokenizer
from pipeline.data.tokens import tokenize_prompt
from pipeline.data.transcript import transcript_of
from pipeline.errors import InputError, RowError
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.evaluation.subjects import Subject
from pipeline.generation.prompts import tokens_before
from pipeline.model import LLMModulesConfig
from pipeline.runs.examples import teachers_tokenizer


@dataclass(frozen=True)
class HeldOutPrompts:
    """What the students answer.

    Attributes:
        conversations: to answer.
        left_out: how many were left out, by reason.
        references: the answers of all rows that they were chosen from.
    """

    conversations: list[Conversation]
    left_out: dict[str, int]
    references: tuple[str, ...] = ()


def cached_rows(cache: Cache, indices: Iterable[int]) -> Iterator[Conversation]:
    """The conversations that some examples of a cache were made from.

    Raises:
        InputError: the cache keeps no texts of this program's making.
    """
    for index in indices:
        yield Conversation(cache.row_ids[index], transcript_of(cache, index).turns)


def held_out_prompts(
    settings: EvaluateSettings,
    subjects: Sequence[Subject],
    training_rows: Sequence[int],
    validation_rows: Sequence[int],
) -> HeldOutPrompts:
    """What the students are to answer: rows of another data set, or the run's own validation rows.

    Raises:
        InputError: the data set cannot be had, or the students read too little.
    """
    if not settings.samples:
        return HeldOutPrompts([], {})
    cache = subjects[0].cache
    if settings.dataset is None:
        rows, malformed = list(cached_rows(cache, validation_rows)), 0
    else:
        loaded = load_conversations(
            settings.dataset,
            config=settings.dataset_config,
            split=settings.split,
            skip_bad_rows=True,
        )
        rows, malformed = loaded.conversations, loaded.malformed
    readers = [_Reader(subject) for subject in subjects]
    most = min(reader.positions for reader in readers)
    if settings.max_new_tokens >= most:
        raise InputError(
            f"--max-new-tokens {settings.max_new_tokens}: these students read {most} tokens; ask"
            " for fewer"
        )

    most_read = cache.identity["max_tokens"]

    def too_long(row: Conversation) -> str | None:
        if any(
            reader.asks_teacher and reader.tokens_of_teacher(row) > most_read for reader in readers
        ):
            return f"prompts over {most_read} tokens of the teacher"
        for reader in readers:
            if reader.tokens_before(row) + settings.max_new_tokens > reader.positions:
                return f"prompts over {reader.positions - settings.max_new_tokens} tokens"
        return None

    found = unseen_prompts(
        rows, cached_rows(cache, training_rows), too_long=too_long, count=settings.samples
    )
    left_out = found.left_out | ({"malformed": malformed} if malformed else {})
    return replace(found, left_out=left_out, references=tuple(row.reference for row in rows))


class _Reader:
    """How much a run's student can read."""

    def __init__(self, subject: Subject) -> None:
        self._config = LLMModulesConfig.from_pretrained(
            subject.folder.model, trust_remote_code=False
        )
        self.positions = int(self._config.body.max_position_embeddings)
        self._tokenizer = load_verified_tokenizer(
            subject.folder.model, subject.record["identity"]["student_tokenizer"]
        )
        self._teachers_tokenizer = teachers_tokenizer(subject.cache)
        self._template: TemplateName = subject.cache.identity["template"]

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher reads prompts for it."""
        return self._config.reads_states

    def tokens_of_teacher(self, row: Conversation) -> int:
        """Tokens that the teacher reads."""
        return len(tokenize_prompt(row.prompt_turns, self._template, self._teachers_tokenizer))

    def tokens_before(self, row: Conversation) -> int:
        """Tokens that it reads before it writes."""
        return len(tokens_before(row.prompt_turns, self._config, self._template, self._tokenizer))


def unseen_prompts(
    rows: Sequence[Conversation],
    trained_on: Iterable[Conversation],
    *,
    too_long: Callable[[Conversation], str | None],
    count: int,
) -> HeldOutPrompts:
    """The first `count` rows with a prompt that no answer of a training example was learned after.

    Prompts are compared by their turns, so it does not matter which file a row comes from.

    Args:
        rows: to choose from.
        trained_on: what the student has learned from.
        too_long: says why a row does not fit the students; None where it does.
        count: how many.
    """
    seen = {
        row.turns[:place]
        for row in trained_on
        for place, turn in enumerate(row.turns)
        if turn.is_answer
    }
    chosen: list[Conversation] = []
    left_out: dict[str, int] = {}
    for row in rows:
        if len(chosen) == count:
            break
        reason = None
        if not row.prompt_turns:
            reason = "asks nothing (plain text)"
        elif row.prompt_turns in seen:
            reason = "was trained on"
        else:
            try:
                reason = too_long(row)
            except RowError as error:
                reason = error.kind
        if reason is None:
            chosen.append(row)
        else:
            left_out[reason] = left_out.get(reason, 0) + 1
    return HeldOutPrompts(chosen, left_out)
