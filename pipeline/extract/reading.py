"""The teacher reads a shard: each shared prefix once, then what the examples have of their own, in batches of like length."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch

from cache.codecs import Codec
from cache.shard_content import NO_PREFIX, Piece, ShardContent, shard_of_pieces
from pipeline.data.tokens import TokenizedExample
from pipeline.errors import InputError, RunError, reason
from pipeline.extract.plan import plan_batches
from pipeline.extract.sharing import SharingPlan
from pipeline.teacher.context import NOTHING, Context, read_after, read_context
from pipeline.teacher.model import Teacher


@dataclass(frozen=True)
class ShardStates:
    """What the teacher gave for a shard.

    Attributes:
        row_ids, lengths: of the examples, in the order of the data set.
        pieces: the prefixes that are stored with them, then what each has of its own.
        non_finite: examples left out because their states are not finite: tokens by row id.
        batch_tokens: most tokens of the padded batches that they were read in.
    """

    row_ids: list[str]
    lengths: list[int]
    pieces: list[Piece]
    non_finite: dict[str, int]
    batch_tokens: int

    def coded(self, codecs: dict[int, Codec]) -> ShardContent:
        """The shard as it is stored."""
        return shard_of_pieces(self.row_ids, self.lengths, self.pieces, codecs)


class ShardReader:
    """Runs the teacher over one shard after the other.

    A prefix from which texts go on is read alone, and never in a batch with others: its last bits so are the same whichever
    shard is read first, and a resumed extract gives the numbers of an uninterrupted one.
    """

    def __init__(
        self,
        teacher: Teacher,
        examples: Sequence[TokenizedExample],
        sharing: SharingPlan,
        batch_tokens: int,
        *,
        skip_non_finite: bool = False,
        progress: Callable[[int], None] = lambda tokens: None,
    ) -> None:
        """Prepare to read.

        Args:
            teacher: gives the states.
            examples: of the whole data set.
            sharing: what they share.
            batch_tokens: most tokens of a padded batch; halved for good when the device's memory turns out to be too small.
            skip_non_finite: leave an example out whose states are not finite, instead of stopping.
            progress: called with the tokens just read, shared ones counted for each example.

        Raises:
            InputError: the teacher cannot go on from a prefix that it has read.
        """
        self._teacher, self._examples, self._sharing = teacher, examples, sharing
        self._batch_tokens, self._skip, self._progress = batch_tokens, skip_non_finite, progress
        self._contexts: dict[int, Context] = {}
        self._faults: dict[int, str] = {}
        if sharing.prefixes and not teacher.goes_on:
            raise InputError(
                f"teacher {type(teacher.body).__name__}: cannot go on from tokens read before; extract with --no-sharing"
            )

    def leave_out(self, prefixes: Iterable[int]) -> None:
        """Told the numbers of prefixes that others found to have no finite states."""
        self._faults |= dict.fromkeys(prefixes, "its shared prefix: the teacher gives values that are not finite")

    def read(self, indices: Sequence[int], stored: Iterable[int] | None = None) -> ShardStates:
        """Read the examples of these indices, and the prefixes that they need.

        Args:
            indices: of the examples, ascending.
            stored: numbers of the prefixes to give back; None: those that are stored in the shard of these examples.

        Raises:
            RunError: a layer's states of an example are not finite; names both, and how many values. Or the device's memory is
                too small for a single example.
        """
        while True:
            try:
                return self._read(indices, stored)
            except torch.OutOfMemoryError as error:
                longest = max(len(self._examples[index]) for index in indices)
                if self._batch_tokens <= longest:
                    raise RunError(
                        f"the device's memory is too small for an example of {longest} tokens ({reason(error)}); leave such "
                        "examples out with --max-tokens"
                    ) from error
                self._batch_tokens = max(self._batch_tokens // 2, longest)
            gc.collect()
            if torch.accelerator.is_available():
                torch.accelerator.memory.empty_cache()

    def _read(self, indices: Sequence[int], stored: Iterable[int] | None) -> ShardStates:
        numbers = self._sharing.stored_with(indices) if stored is None else sorted(stored)
        prefixes = self._read_stems(indices, numbers)
        leaves = [number for number in numbers if not self._sharing.prefixes[number].is_stem]  # of whole duplicates
        runs = [self._prefix_run(number) for number in leaves]
        for index in indices:
            example = self._examples[index]
            runs.append(_Run(example, self._sharing.before(index), len(example), self._sharing.of_example[index]))
        pieces = self._read_batches(runs)
        prefixes |= dict(zip(leaves, pieces, strict=False))
        return self._gathered(indices, prefixes, pieces[len(leaves) :], numbers)

    def _prefix_run(self, number: int) -> _Run:
        prefix = self._sharing.prefixes[number]
        return _Run(self._examples[prefix.example], prefix.start, prefix.stop, prefix.after, number)

    def _read_stems(self, indices: Sequence[int], numbers: Sequence[int]) -> dict[int, Piece]:
        """Read the prefixes from which texts go on here, unless that is known already; forget those that are not needed."""
        needed = {number for index in indices for number in self._sharing.path(self._sharing.of_example[index])} | set(numbers)
        stems = sorted(number for number in needed if self._sharing.prefixes[number].is_stem)
        contexts, pieces = {}, {}
        for number in stems:
            if number in self._contexts and number not in numbers:
                contexts[number] = self._contexts[number]
                continue
            run = self._prefix_run(number)
            before = contexts.get(run.after, NOTHING)
            states, contexts[number] = read_context(self._teacher, torch.from_numpy(run.ids.astype(np.int64))[None], before)
            pieces[number] = run.piece({layer: hidden[0] for layer, hidden in _on_host(states).items()})
        self._contexts = contexts
        return pieces

    def _read_batches(self, runs: Sequence[_Run]) -> list[Piece]:
        """Read runs of tokens in batches of like length, and give them back in their order."""
        pieces: dict[int, Piece] = {}
        for batch in plan_batches([len(run) for run in runs], self._batch_tokens):
            rows = [runs[i] for i in batch]
            if not len(rows[0]):  # longest first: the others have none either
                states = {
                    layer: torch.zeros(len(rows), 0, self._teacher.width, dtype=torch.bfloat16) for layer in self._teacher.layers
                }
            else:
                ids_BT, mask_BT = _padded([row.ids for row in rows])
                contexts = [self._contexts.get(row.after, NOTHING) for row in rows]
                states = _on_host(read_after(self._teacher, ids_BT, mask_BT, contexts))
            for row, (index, run) in enumerate(zip(batch, rows, strict=True)):
                pieces[index] = run.piece({layer: hidden[row, : len(run)] for layer, hidden in states.items()})
            self._progress(sum(run.stop for run in rows if run.number == NO_PREFIX))
        return [pieces[index] for index in range(len(runs))]

    def _gathered(
        self, indices: Sequence[int], prefixes: dict[int, Piece], examples: Sequence[Piece], stored: Sequence[int]
    ) -> ShardStates:
        """All pieces in their order, less those whose states are not finite."""
        for number in sorted(prefixes):
            if fault := self._fault(prefixes[number]):
                self._faults[number] = fault
        kept, non_finite = [], {}
        for index, piece in zip(indices, examples, strict=True):
            example = self._examples[index]
            fault = self._fault(piece)
            if fault is None:
                kept.append((example, piece))
            elif self._skip:
                non_finite[example.row_id] = len(example)
            else:
                raise RunError(f"row {example.row_id}, {fault}; leave such rows out with --skip-non-finite, or try --dtype fp32")
        return ShardStates(
            [example.row_id for example, _ in kept],
            [len(example) for example, _ in kept],
            [prefixes[number] for number in stored if number not in self._faults] + [piece for _, piece in kept],
            non_finite,
            self._batch_tokens,
        )

    def _fault(self, piece: Piece) -> str | None:
        """Why a piece cannot be stored: its states, or those of what comes before it, are not finite."""
        for number in self._sharing.path(piece.after):
            if number in self._faults:
                return self._faults[number]
        for layer, hidden_TD in piece.hidden_states.items():
            if count := int((~np.isfinite(hidden_TD)).sum()):
                return f"layer {layer}: the teacher gives {count} values that are not finite"
        return None


@dataclass(frozen=True)
class _Run:
    """Tokens `start` to `stop` of an example, that come after a prefix; themselves the prefix of that number, or of none."""

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

    def piece(self, hidden_states: dict[int, torch.Tensor]) -> Piece:
        """The run with its hidden states `[T, d_teacher]` bfloat16."""
        bits = {layer: values.contiguous().view(torch.uint16).numpy() for layer, values in hidden_states.items()}
        states = {layer: values.view(ml_dtypes.bfloat16) for layer, values in bits.items()}
        return Piece(self.ids, self.example.loss_mask[self.start : self.stop], states, self.after, self.number)


def read_batch(teacher: Teacher, rows: Sequence[TokenizedExample]) -> list[dict[int, torch.Tensor]]:
    """Hidden states `[T, d_teacher]` in bfloat16, on the host, of whole examples, from one forward pass."""
    ids_BT, mask_BT = _padded([row.input_ids for row in rows])
    states = _on_host(read_after(teacher, ids_BT, mask_BT, [NOTHING] * len(rows)))
    return [{layer: hidden[row, : len(example)] for layer, hidden in states.items()} for row, example in enumerate(rows)]


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
