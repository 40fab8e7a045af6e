"""The teacher reads a shard: each shared prefix once, then what the examples have of their own, in
batches of like length."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch

from cache.codecs import Codec
from cache.shard.content import NO_PREFIX, Segment, ShardContent, shard_of_segments
from pipeline.data.tokenized_dataset import TokenizedExample
from pipeline.errors import InputError, RunError, reason
from pipeline.extract.batching import plan_batches
from pipeline.extract.sharing import SharingPlan
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.teacher.model import Teacher
from pipeline.teacher.prefix_kv import EMPTY_PREFIX, PrefixKV, extend_prefix, read_with_prefixes

_LEAST_BATCH = 256
"""Tokens below which a batch is not halved any further: it is a single example already."""
_CONTEXTS = 4
"""What texts go on from may be held for a fraction of as many tokens as a batch has: all blocks'
keys and values are."""


@dataclass(frozen=True)
class ShardStates:
    """What the teacher gave for a shard.

    Attributes:
        row_ids, texts, lengths: of the examples, in the order of the data set.
        segments: the prefixes that are stored with them, then what each has of its own.
        non_finite: examples left out because their states are not finite: tokens by row id.
        batch_tokens: most tokens of the padded batches that they were read in.
    """

    row_ids: list[str]
    texts: list[str]
    lengths: list[int]
    segments: list[Segment]
    non_finite: dict[str, int]
    batch_tokens: int

    def coded(self, codecs: dict[int, Codec]) -> ShardContent:
        """The shard as it is stored."""
        return shard_of_segments(self.row_ids, self.texts, self.lengths, self.segments, codecs)


class TeacherPass:
    """Runs the teacher over one shard after the other.

    A prefix from which texts go on is read alone, and never in a batch with others: its last bits
    so are the same whichever shard is read first, and a resumed extract gives the numbers of an
    uninterrupted one."""

    def __init__(
        self,
        teacher: Teacher,
        examples: Sequence[TokenizedExample],
        sharing: SharingPlan,
        batch_tokens: int,
        *,
        skip_non_finite: bool = False,
    ) -> None:
        """Prepare to read.

        Args:
            teacher: gives the states.
            examples: of the whole data set.
            sharing: what they share.
            batch_tokens: most tokens of a padded batch; halved for good when the device's memory
                turns out to be too small.
            skip_non_finite: leave an example out whose states are not finite, instead of stopping.

        Raises:
            InputError: the teacher cannot go on from a prefix that it has read.
        """
        self._teacher, self._examples, self._sharing = teacher, examples, sharing
        self._batch_tokens, self._skip = batch_tokens, skip_non_finite
        self._contexts: dict[int, PrefixKV] = {}
        self._faults: dict[int, str] = {}
        require_continuation(teacher, sharing)

    def leave_out(self, prefixes: Iterable[int]) -> None:
        """Told the numbers of prefixes that others found to have no finite states."""
        self._faults |= dict.fromkeys(
            prefixes, "its shared prefix: the teacher gives values that are not finite"
        )

    def read(
        self,
        indices: Sequence[int],
        stored: Iterable[int] | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> ShardStates:
        """Read the examples of these indices, and the prefixes that they need.

        Args:
            indices: of the examples, ascending.
            stored: numbers of the prefixes to give back; None: those that are stored in the shard
                of these examples.
            progress: counts tokens, those of shared prefixes once per example.

        Raises:
            RunError: a layer's states of an example are not finite; names both, and how many
                values. Or the device's memory is too small for a single example.
        """
        self._progress = progress
        while True:
            try:
                return self._read(indices, stored)
            except torch.OutOfMemoryError as error:
                if self._batch_tokens <= _LEAST_BATCH:
                    longest = max(len(self._examples[index]) for index in indices)
                    raise RunError(
                        f"the device's memory is too small for an example of {longest} tokens"
                        f" ({reason(error)}); leave such examples out with --max-tokens"
                    ) from error
                self._batch_tokens = max(self._batch_tokens // 2, _LEAST_BATCH)
            self._contexts.clear()
            gc.collect()
            if torch.accelerator.is_available():
                torch.accelerator.memory.empty_cache()

    def _read(self, indices: Sequence[int], stored: Iterable[int] | None) -> ShardStates:
        """Depth first over what the texts share: what they go on from is held no longer than it is
        needed.

        Which texts are read together follows from the shard alone, not from what was read before
        it."""
        numbers = self._sharing.stored_with(indices) if stored is None else sorted(stored)
        leaves = [
            number for number in numbers if not self._sharing.prefixes[number].is_stem
        ]  # of whole duplicates
        runs = [self._prefix_run(number) for number in leaves]
        for index in indices:
            example = self._examples[index]
            runs.append(
                _Run(
                    example,
                    self._sharing.before(index),
                    len(example),
                    self._sharing.of_example[index],
                )
            )
        waiting = defaultdict(list)
        for place, run in enumerate(runs):
            waiting[run.after if len(run) else NO_PREFIX].append(
                place
            )  # a whole duplicate waits for nothing
        segments: dict[int, Segment] = {}
        prefixes, ready, entered = {}, waiting[NO_PREFIX], []
        for stem in self._stems(indices, numbers):
            if stem not in self._contexts or stem in numbers:
                prefixes[stem] = self._read_stem(stem)
            ready += waiting[stem]
            entered.append(stem)
            if sum(self._sharing.prefixes[number].stop for number in entered) > self._most_context:
                segments |= self._read_batches(runs, ready)
                ready, entered = [], self._sharing.path(stem)
                self._forget(entered)
        segments |= self._read_batches(runs, ready)
        self._forget(())
        prefixes |= {number: segments[place] for place, number in enumerate(leaves)}
        return self._gathered(
            indices, prefixes, [segments[place] for place in range(len(leaves), len(runs))], numbers
        )

    def _prefix_run(self, number: int) -> _Run:
        prefix = self._sharing.prefixes[number]
        return _Run(self._examples[prefix.example], prefix.start, prefix.stop, prefix.after, number)

    def _stems(self, indices: Sequence[int], numbers: Sequence[int]) -> list[int]:
        """The prefixes from which texts go on here, each before those that go on from it, and these
        before any others."""
        needed = {
            number
            for index in indices
            for number in self._sharing.path(self._sharing.of_example[index])
        } | set(numbers)
        return sorted(
            (number for number in needed if self._sharing.prefixes[number].is_stem),
            key=self._sharing.path,
        )

    def _read_stem(self, number: int) -> Segment:
        run = self._prefix_run(number)
        before = self._contexts.get(run.after, EMPTY_PREFIX)
        states, self._contexts[number] = extend_prefix(
            self._teacher, torch.from_numpy(run.ids.astype(np.int64))[None], before
        )
        return run.segment({layer: hidden[0] for layer, hidden in _on_host(states).items()})

    @property
    def _most_context(self) -> int:
        return self._batch_tokens // _CONTEXTS

    def _forget(self, needed: Sequence[int]) -> None:
        """Let go of what was read first, until what is left is not too much to hold; never of what
        is needed."""
        for number in [number for number in self._contexts if number not in needed]:
            if sum(map(len, self._contexts.values())) <= self._most_context:
                break
            del self._contexts[number]

    def _read_batches(self, runs: Sequence[_Run], ready: Sequence[int]) -> dict[int, Segment]:
        """Read the runs at some places in batches of like length; their segments, by the same
        places."""
        segments: dict[int, Segment] = {}
        chosen = [runs[place] for place in ready]
        for batch in plan_batches(
            list(map(len, chosen)), self._batch_tokens, [run.start for run in chosen]
        ):
            rows = [chosen[i] for i in batch]
            if not len(rows[0]):  # longest first: the others have none either
                states = {
                    layer: torch.zeros(len(rows), 0, self._teacher.width, dtype=torch.bfloat16)
                    for layer in self._teacher.layers
                }
            else:
                ids_BT, mask_BT = _padded([row.ids for row in rows])
                contexts = [self._contexts.get(row.after, EMPTY_PREFIX) for row in rows]
                states = _on_host(read_with_prefixes(self._teacher, ids_BT, mask_BT, contexts))
            for row, (index, run) in enumerate(zip(batch, rows, strict=True)):
                segments[ready[index]] = run.segment(
                    {layer: hidden[row, : len(run)] for layer, hidden in states.items()}
                )
            self._progress.advance(sum(run.stop for run in rows if run.number == NO_PREFIX))
        return segments

    def _gathered(
        self,
        indices: Sequence[int],
        prefixes: dict[int, Segment],
        examples: Sequence[Segment],
        stored: Sequence[int],
    ) -> ShardStates:
        """All segments in their order, less those whose states are not finite."""
        for number in sorted(prefixes):
            if fault := self._fault(prefixes[number]):
                self._faults[number] = fault
        kept, non_finite = [], {}
        for index, segment in zip(indices, examples, strict=True):
            example = self._examples[index]
            fault = self._fault(segment)
            if fault is None:
                kept.append((example, segment))
            elif self._skip:
                non_finite[example.row_id] = len(example)
            else:
                raise RunError(
                    f"row {example.row_id}, {fault}; leave such rows out with --skip-non-finite, or"
                    " try --dtype fp32"
                )
        return ShardStates(
            [example.row_id for example, _ in kept],
            [example.text for example, _ in kept],
            [len(example) for example, _ in kept],
            [prefixes[number] for number in stored if number not in self._faults]
            + [segment for _, segment in kept],
            non_finite,
            self._batch_tokens,
        )

    def _fault(self, segment: Segment) -> str | None:
        """Why a segment cannot be stored: its states, or those of what comes before it, are not
        finite."""
        for number in self._sharing.path(segment.after):
            if number in self._faults:
                return self._faults[number]
        for layer, hidden_TD in segment.hidden_states.items():
            if count := int((~np.isfinite(hidden_TD)).sum()):
                return f"layer {layer}: the teacher gives {count} values that are not finite"
        return None


@dataclass(frozen=True)
class _Run:
    """Tokens `start` to `stop` of an example, that come after a prefix; themselves the prefix of
    that number, or of none."""

    example: TokenizedExample
    start: int
    stop: int
    after: int
    number: int = NO_PREFIX

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def ids(self) -> npt.NDArray[np.int32]:
        """Token ids `[T]`."""
        return self.example.input_ids[self.start : self.stop]

    def segment(self, hidden_states: dict[int, torch.Tensor]) -> Segment:
        """The run with its hidden states `[T, d_teacher]` bfloat16."""
        bits = {
            layer: values.contiguous().view(torch.uint16).numpy()
            for layer, values in hidden_states.items()
        }
        states = {layer: values.view(ml_dtypes.bfloat16) for layer, values in bits.items()}
        return Segment(
            self.ids,
            self.example.loss_mask[self.start : self.stop],
            states,
            self.after,
            self.number,
        )


def require_continuation(teacher: Teacher, sharing: SharingPlan) -> None:
    """Refuse a plan that shares what this teacher has to read whole.

    Raises:
        InputError: says what to do.
    """
    if sharing.prefixes and not teacher.continues_from_kv:
        raise InputError(
            f"teacher {type(teacher.body).__name__}: cannot go on from tokens read before; extract"
            " with --no-sharing"
        )


def read_batch(teacher: Teacher, rows: Sequence[TokenizedExample]) -> list[dict[int, torch.Tensor]]:
    """Hidden states `[T, d_teacher]` in bfloat16, on the host, of whole examples, from one forward
    pass."""
    ids_BT, mask_BT = _padded([row.input_ids for row in rows])
    states = _on_host(read_with_prefixes(teacher, ids_BT, mask_BT, [EMPTY_PREFIX] * len(rows)))
    return [
        {layer: hidden[row, : len(example)] for layer, hidden in states.items()}
        for row, example in enumerate(rows)
    ]


def _on_host(states: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
    return {layer: hidden.to("cpu", torch.bfloat16) for layer, hidden in states.items()}


def _padded(rows: Sequence[npt.NDArray[np.int32]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask `[B, T]`, padded on the right."""
    longest = max(map(len, rows))
    ids_BT = np.zeros((len(rows), longest), np.int64)
    mask_BT = np.zeros((len(rows), longest), np.int64)
    for index, row in enumerate(rows):
        ids_BT[index, : len(row)] = row
        mask_BT[index, : len(row)] = 1
    return torch.from_numpy(ids_BT), torch.from_numpy(mask_BT)
