"""The teacher's forward pass over a shard: shared prefixes, then batches of similar length."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch

from cache.shard.content import NO_PREFIX, Segment
from pipeline.data.tokenized_dataset import TokenizedExample
from pipeline.device import free_memory
from pipeline.errors import RunError, reason
from pipeline.extract.batching import plan_batches
from pipeline.extract.padded_batch import read_runs
from pipeline.extract.prefix_pass import PrefixPass, require_continuation
from pipeline.extract.shard_states import FiniteStates, ShardStates
from pipeline.extract.sharing import SharingPlan
from pipeline.extract.token_run import TokenRun
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.teacher.model import Teacher

_LEAST_BATCH = 256
"""Tokens below which a batch is not halved."""
_PREFIX_SHARE = 4
"""Kept prefixes have at most 1 / 4 of a batch's tokens, as keys and values take memory."""


class TeacherPass:
    """Runs the teacher over shards.

    A prefix that texts continue is read alone, never in a batch, so that its last bits do not
    depend on which shard is read first, and a resumed extract computes the same values.
    """

    def __init__(
        self,
        teacher: Teacher,
        examples: list[TokenizedExample],
        sharing: SharingPlan,
        batch_tokens: int,
        *,
        skip_non_finite: bool = False,
    ) -> None:
        """Prepare the pass.

        Args:
            teacher: computes the states.
            examples: of the whole data set.
            sharing: their shared prefixes.
            batch_tokens: most tokens of a padded batch; halved for good if the device runs out of
                memory.
            skip_non_finite: leave an example out if its states are not finite, instead of raising.

        Raises:
            InputError: the teacher cannot continue from a prefix.
        """
        require_continuation(teacher, sharing)
        self._teacher, self._examples, self._sharing = teacher, examples, sharing
        self._batch_tokens = batch_tokens
        self._prefixes = PrefixPass(teacher, examples, sharing)
        self._finite = FiniteStates(sharing, skip=skip_non_finite)

    def leave_out(self, prefixes: Iterable[int]) -> None:
        """Mark prefixes that other workers computed without finite states."""
        self._finite.leave_out(prefixes)

    def read(
        self,
        indices: Sequence[int],
        stored: Iterable[int] | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> ShardStates:
        """Read examples and the prefixes that they need; halve the batches when out of memory.

        Args:
            indices: of the examples, ascending.
            stored: numbers of the prefixes to return; None: those stored in the examples' shard.
            progress: counts tokens, those of shared prefixes once per example.

        Raises:
            RunError: states are not finite, or a single example is too large for the memory.
        """
        numbers = self._sharing.stored_with(indices) if stored is None else sorted(stored)
        while True:
            try:
                return self._read(indices, numbers, progress)
            except torch.OutOfMemoryError as error:
                if self._batch_tokens <= _LEAST_BATCH:
                    longest = max(len(self._examples[index]) for index in indices)
                    raise RunError(
                        f"the device's memory is too small for an example of {longest} tokens"
                        f" ({reason(error)}); leave such examples out with --max-tokens"
                    ) from error
            self._batch_tokens = max(self._batch_tokens // 2, _LEAST_BATCH)
            self._prefixes.clear()
            free_memory()

    def _read(
        self, indices: Sequence[int], numbers: Sequence[int], progress: Progress
    ) -> ShardStates:
        """Read prefixes depth first; read the waiting texts whenever too much is kept for them.

        Batches depend on the shard alone, not on what was read before it.
        """
        duplicated = [number for number in numbers if not self._sharing.prefixes[number].is_stem]
        runs = [TokenRun.of_prefix(n, self._examples, self._sharing) for n in duplicated]
        runs += [TokenRun.of_example(index, self._examples, self._sharing) for index in indices]
        waiting = defaultdict(list)
        for place, run in enumerate(runs):
            # An example without tokens of its own waits for no prefix.
            waiting[run.after if len(run) else NO_PREFIX].append(place)
        segments: dict[int, Segment] = {}
        prefixes: dict[int, Segment] = {}
        ready, entered = waiting[NO_PREFIX], list[int]()
        for stem in self._stems(indices, numbers):
            if stem not in self._prefixes or stem in numbers:
                prefixes[stem] = self._prefixes.read(stem)
            ready += waiting[stem]
            entered.append(stem)
            if sum(self._sharing.prefixes[number].stop for number in entered) > self._most_kept:
                segments |= self._read_batches(runs, ready, progress)
                ready, entered = [], self._sharing.path(stem)
                self._prefixes.trim(self._most_kept, entered)
        segments |= self._read_batches(runs, ready, progress)
        self._prefixes.trim(self._most_kept)
        prefixes |= {number: segments[place] for place, number in enumerate(duplicated)}
        examples = [
            (self._examples[index], segments[place])
            for place, index in enumerate(indices, start=len(duplicated))
        ]
        return self._finite.assemble(prefixes, examples, numbers, self._batch_tokens)

    @property
    def _most_kept(self) -> int:
        return self._batch_tokens // _PREFIX_SHARE

    def _stems(self, indices: Sequence[int], numbers: Sequence[int]) -> list[int]:
        """Return the prefixes that texts continue, depth first."""
        needed = {
            number
            for index in indices
            for number in self._sharing.path(self._sharing.of_example[index])
        } | set(numbers)
        stems = (number for number in needed if self._sharing.prefixes[number].is_stem)
        return sorted(stems, key=self._sharing.path)

    def _read_batches(
        self, runs: Sequence[TokenRun], ready: Sequence[int], progress: Progress
    ) -> dict[int, Segment]:
        """Read the runs at some places in batches; return their segments by place."""
        segments: dict[int, Segment] = {}
        chosen = [runs[place] for place in ready]
        lengths, starts = [len(run) for run in chosen], [run.start for run in chosen]
        for batch in plan_batches(lengths, self._batch_tokens, starts):
            rows = [chosen[i] for i in batch]
            prefixes = [self._prefixes.kv(run.after) for run in rows]
            states = read_runs(self._teacher, rows, prefixes)
            for row, (i, run) in enumerate(zip(batch, rows, strict=True)):
                segments[ready[i]] = run.segment(
                    {layer: hidden_BTD[row, : len(run)] for layer, hidden_BTD in states.items()}
                )
            progress.advance(sum(run.stop for run in rows if run.number == NO_PREFIX))
        return segments
