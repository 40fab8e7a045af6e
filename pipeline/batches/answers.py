"""A cache's answers as a `torch.utils.data` data set, in the student's own tokens, with the states
of what each answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from cache import Cache
from pipeline.batches.features import CachedExamples, Features
from pipeline.data.student_tokens import answer_tokens, prompt_tokens
from pipeline.data.transcript import Answer, Transcript, transcript_of

RowStep = Callable[[int, int], None]
"""Told how many examples have been looked at, of how many."""


@dataclass(frozen=True)
class _Item:
    index: int
    answer: Answer
    length: int


class CachedAnswers(CachedExamples):
    """Each answer of some examples: the student's tokens of it, and the teacher's states of all
    that came before it.

    An answer in the middle of a conversation has the states up to where it begins, and so nothing
    of what comes after. Answers are read and tokenised when they are needed; what is kept of each
    is where it is and how long."""

    def __init__(
        self,
        cache: Cache,
        indices: Sequence[int],
        layers: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        *,
        with_prompts: bool = False,
        longest: int | None = None,
        step: RowStep = lambda done, total: None,
    ) -> None:
        """Look at the answers of the examples of these indices.

        Args:
            cache: holds them.
            indices: of the examples.
            layers: cached layers to read.
            tokenizer: the student's.
            with_prompts: the student reads the prompts, too, in its own tokens.
            longest: leave answers of more tokens, their end included, out, and count them.
            step: told how far this is.

        Raises:
            InputError: the cache keeps no texts of this program's making.
        """
        super().__init__(cache, layers)
        self._tokenizer, self._with_prompts = tokenizer, with_prompts
        self._items: list[_Item] = []
        self.left_out = 0
        self.occurring: set[int] = set()
        for done, index in enumerate(indices):
            step(done, len(indices))
            transcript = transcript_of(cache, index)
            for answer in transcript.answers:
                ids, learned = self._tokens(transcript, answer)
                if longest is not None and learned > longest:
                    self.left_out += 1
                else:
                    self._items.append(_Item(index, answer, len(ids)))
                    self.occurring.update(ids[-learned:])
        step(len(indices), len(indices))

    @property
    def indices(self) -> list[int]:
        """Index in the cache of the example that the answer at each place is from."""
        return [item.index for item in self._items]

    @property
    def lengths(self) -> list[int]:
        """Tokens that the student reads at each place."""
        return [item.length for item in self._items]

    @property
    def sizes(self) -> list[int]:
        """Tokens that a batch counts at each place: those that the student reads, and those whose
        states it looks at."""
        return [item.length + (item.answer.start if self.layers else 0) for item in self._items]

    def learned_bytes(self, place: int) -> int:
        """Bytes of the answer at a place."""
        item = self._items[place]
        return len(transcript_of(self.cache, item.index).answer_text(item.answer).encode())

    def at(self, place: int) -> Features:
        """The answer at a place."""
        item = self._items[place]
        ids, learned = self._tokens(transcript_of(self.cache, item.index), item.answer)
        features: Features = {
            "row_id": self.cache.row_ids[item.index],
            "input_ids": torch.tensor(ids),
            "loss_mask": torch.arange(len(ids)) >= len(ids) - learned,
        }
        if not self.layers:
            return features
        example, states = self._states(item.index)
        start = item.answer.start
        mask = torch.ones(min(start, len(example.input_ids)), dtype=torch.long)
        return features | _before(states, start) | {"states_mask": mask}

    def _tokens(self, transcript: Transcript, answer: Answer) -> tuple[list[int], int]:
        """The student's tokens of an answer, and how many of them, at the end, are to be
        learned."""
        written = answer_tokens(transcript.answer_text(answer), self._tokenizer)
        return prompt_tokens(
            transcript.prompt_of(answer) if self._with_prompts else None, self._tokenizer
        ) + written, len(written)


def _before(states: Features, start: int) -> Features:
    """The states of the tokens before one."""
    cut = {name: values[:start] for name, values in states.items() if not name.startswith("exact_")}
    for name in (name for name in states if name.startswith("exact_rows.")):
        kept, of_states = states[name] < start, name.replace("rows", "states")
        cut |= {name: states[name][kept], of_states: states[of_states][kept]}
    return cut
