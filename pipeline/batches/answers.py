"""Answers in the student's own tokens, with the teacher's states of the preceding text."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from cache import Cache
from pipeline.batches.examples import CachedExamples, Features
from pipeline.data.alignment import AlignedPrompt, TeacherReading, align_prompt
from pipeline.data.conversations import Turn
from pipeline.data.student_tokens import answer_tokens, prompt_tokens
from pipeline.data.transcript import transcript_of
from pipeline.progress import NO_PROGRESS, Progress


class CachedAnswers(CachedExamples):
    """The answers of examples: student tokens, and the states of all preceding text.

    An answer in the middle of a conversation has the states before its start, and no later ones.
    Answers are tokenised once, into flat tensors, which loader processes share.
    """

    def __init__(
        self,
        cache: Cache,
        indices: Sequence[int],
        layers: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        *,
        with_prompts: bool = False,
        aligned_with: TeacherReading | None = None,
        longest: int | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> None:
        """Tokenise the answers.

        Args:
            cache: has the examples.
            indices: of the examples in the cache.
            layers: cached layers to read.
            tokenizer: the student's.
            with_prompts: also read the prompts, in student tokens.
            aligned_with: how the teacher read the prompts, to align each student token with one of
                its states; None: do not align.
            longest: leave out answers of more tokens, including the end token, and count them.
            progress: counts the examples.

        Raises:
            InputError: the cache has no transcripts, or the prompts cannot be aligned.
        """
        super().__init__(cache, layers)
        self._is_aligned = aligned_with is not None
        tokens, places, offsets = array("i"), array("i"), array("q", [0])
        columns = {name: array("q") for name in ("index", "start", "learned", "bytes")}
        progress.stage("answers", len(indices))
        for index in indices:
            transcript = transcript_of(cache, index)
            for answer in transcript.answers:
                text = transcript.answer_text(answer)
                answer_ids = answer_tokens(text, tokenizer)
                if longest is not None and len(answer_ids) > longest:
                    self.left_out += 1
                    continue
                turns = transcript.prompt_of(answer) if with_prompts else None
                prompt = _read_prompt(turns, aligned_with, tokenizer)
                tokens.extend(prompt.ids + answer_ids)
                places.extend(prompt.places + [-1] * (len(answer_ids) if self._is_aligned else 0))
                offsets.append(len(tokens))
                columns["index"].append(index)
                columns["start"].append(answer.start)
                columns["learned"].append(len(answer_ids))
                columns["bytes"].append(len(text.encode()))
            progress.advance()
        self._tokens, self._offsets = _tensor(tokens, torch.int32), _tensor(offsets, torch.int64)
        self._places = _tensor(places, torch.int32)
        self._columns = {name: _tensor(values, torch.int64) for name, values in columns.items()}

    @property
    def indices(self) -> list[int]:
        """Index in the cache of the example of the answer at each place."""
        return self._columns["index"].tolist()

    @property
    def lengths(self) -> list[int]:
        """Number of tokens that the student reads at each place."""
        return self._offsets.diff().tolist()

    @property
    def sizes(self) -> list[int]:
        """Number of tokens at each place: student tokens, and teacher tokens with states."""
        lengths = self._offsets.diff()
        return (lengths + self._columns["start"] if self.layers else lengths).tolist()

    @property
    def occurring(self) -> set[int]:
        """Token ids that occur in the answers."""
        places = torch.arange(len(self._tokens))
        ends = self._offsets[1:].repeat_interleave(self._offsets.diff())
        learned = self._columns["learned"].repeat_interleave(self._offsets.diff())
        return set(self._tokens[places >= ends - learned].unique().tolist())

    @property
    def read_tokens(self) -> set[int]:
        """Token ids that occur in the answers and in the prompts that are read."""
        return set(self._tokens.unique().tolist())

    def learned_bytes(self, place: int) -> int:
        """Return the bytes of the answer at a place."""
        return int(self._columns["bytes"][place])

    def at(self, place: int) -> Features:
        """Return the answer at a place."""
        index, start, learned = (
            int(self._columns[name][place]) for name in ("index", "start", "learned")
        )
        at = slice(int(self._offsets[place]), int(self._offsets[place + 1]))
        ids = self._tokens[at].long()
        features: Features = {
            "row_id": self.cache.row_ids[index],
            "input_ids": ids,
            "loss_mask": torch.arange(len(ids)) >= len(ids) - learned,
        }
        if not self.layers:
            return features
        example, states = self._states(index)
        count = min(start, len(example.input_ids))
        features |= _first_states(states, start) | {
            "states_mask": torch.ones(count, dtype=torch.long)
        }
        if self._is_aligned:
            features["state_places"] = self._places[at].long().clamp(max=count - 1)
        return features

    def __len__(self) -> int:
        return len(self._columns["index"])


def _read_prompt(
    turns: Sequence[Turn] | None,
    teacher: TeacherReading | None,
    tokenizer: PreTrainedTokenizerBase,
) -> AlignedPrompt:
    """Return the tokens before an answer, with places if a teacher's states are aligned."""
    if teacher is None or turns is None:
        return AlignedPrompt(ids=prompt_tokens(turns, tokenizer), places=[])
    return align_prompt(turns, teacher, teacher.locate(turns), tokenizer)


def _tensor(values: array[Any], dtype: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(values, dtype=dtype) if values else torch.empty(0, dtype=dtype)


def _first_states(states: Features, count: int) -> Features:
    """Return the states of the first `count` tokens."""
    cut = {name: values[:count] for name, values in states.items() if not name.startswith("exact_")}
    for rows_name in (name for name in states if name.startswith("exact_rows.")):
        states_name = rows_name.replace("rows", "states")
        kept = states[rows_name] < count
        cut |= {rows_name: states[rows_name][kept], states_name: states[states_name][kept]}
    return cut
