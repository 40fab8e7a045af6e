"""A teacher that computes shards, in any process."""

from __future__ import annotations

from collections.abc import Iterable

from cache.codecs import Codec
from pipeline.device import choose_device, choose_dtype
from pipeline.extract.calibration import calibrate, needs_lm_head
from pipeline.extract.forward import TeacherPass
from pipeline.extract.prefix_pass import require_continuation
from pipeline.extract.shard_states import ShardStates
from pipeline.extract.work import TeacherWork
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.teacher.load import load_teacher
from pipeline.teacher.model import Teacher


class ShardWorker:
    """Loads the teacher when it is first needed, and computes shards with it."""

    def __init__(self, work: TeacherWork) -> None:
        self._work = work
        self._teacher: Teacher | None = None
        self._pass: TeacherPass | None = None

    def calibrate(self, progress: Progress = NO_PROGRESS) -> dict[int, Codec]:
        """Return the codecs, fitted to a sample of the data set.

        Raises:
            InputError: the teacher's weights cannot be loaded, or no step meets a requirement.
            RunError: no example of the sample has finite states.
        """
        teacher = self.load(with_lm_head=needs_lm_head(self._work.requirements))
        codecs = calibrate(self._work, teacher, progress)
        teacher.drop_lm_head()
        return codecs

    def read(
        self, shard: int, unusable: Iterable[int], progress: Progress = NO_PROGRESS
    ) -> ShardStates:
        """Return the states of a shard.

        Args:
            shard: its number.
            unusable: shared prefixes without finite states, as far as known; complete for those
                that complete duplicates have.
            progress: counts the tokens.

        Raises:
            InputError: the teacher's weights cannot be loaded.
            RunError: the teacher's states are not finite.
        """
        if self._pass is None:
            self._pass = TeacherPass(
                self.load(),
                self._work.examples,
                self._work.sharing,
                self._work.most_batch_tokens,
                skip_non_finite=self._work.skip_non_finite,
            )
        self._pass.leave_out(unusable)
        return self._pass.read(self._work.shards[shard], progress=progress)

    def load(self, *, with_lm_head: bool = False) -> Teacher:
        """Return the teacher; load it if it is not loaded yet, or lacks the LM head.

        Raises:
            InputError: its weights cannot be loaded, or it cannot continue from a shared prefix.
        """
        if with_lm_head and self._teacher is not None and not self._teacher.has_lm_head:
            self._teacher = self._pass = None
        if self._teacher is None:
            device = choose_device(self._work.device)
            dtype = choose_dtype(self._work.dtype, device)
            self._teacher = load_teacher(
                self._work.source, self._work.layers, device, dtype, with_lm_head=with_lm_head
            )
            require_continuation(self._teacher, self._work.sharing)  # before the cache is begun
        return self._teacher
