"""The teacher's speed on this machine, measured on a few batches."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pipeline.data.tokenized_dataset import TokenizedExample
from pipeline.device import choose_device, choose_dtype
from pipeline.extract.batching import plan_batches
from pipeline.extract.padded_batch import read_batch
from pipeline.extract.plan import ExtractPlan
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.teacher.load import load_teacher

_BATCHES = 8
_SECONDS = 20.0


@dataclass(frozen=True)
class SpeedProbe:
    """A measured speed.

    Attributes:
        load_seconds: loading the teacher.
        tokens: read by the probe.
        tokens_per_second: over those tokens.
    """

    load_seconds: float
    tokens: int
    tokens_per_second: float

    def seconds(self, tokens: int) -> float:
        """Return the time that the teacher's pass over some tokens takes."""
        return round(tokens / self.tokens_per_second, 1)


def probe_speed(
    plan: ExtractPlan, examples: list[TokenizedExample], progress: Progress = NO_PROGRESS
) -> SpeedProbe:
    """Load the teacher, and measure it on batches from the longest to the shortest.

    Args:
        plan: the extract.
        examples: to choose batches from; at least one.
        progress: shows the stages.

    Raises:
        InputError: the teacher's weights cannot be loaded.
    """
    settings = plan.settings
    device = choose_device(settings.device)
    progress.stage("loading the teacher")
    began = time.perf_counter()
    dtype = choose_dtype(settings.dtype, device)
    teacher = load_teacher(plan.source, settings.layers, device, dtype)
    load_seconds = time.perf_counter() - began
    progress.stage("measuring its speed")
    lengths = [len(example) for example in examples]
    batches = _spread(plan_batches(lengths, plan.batch_tokens))
    read_batch(teacher, [examples[batches[0][0]]])  # the first pass is slower than all others
    tokens, began = 0, time.perf_counter()
    for batch in batches:
        read_batch(teacher, [examples[index] for index in batch])
        tokens += sum(lengths[index] for index in batch)
        if time.perf_counter() - began > _SECONDS:
            break
    speed = tokens / (time.perf_counter() - began)
    return SpeedProbe(round(load_seconds, 2), tokens, speed)


def _spread(batches: list[list[int]]) -> list[list[int]]:
    """Return evenly spaced batches, alternating long and short ones.

    So a probe that its time limit ends early has seen both.
    """
    count = min(_BATCHES, len(batches))
    chosen = [batches[i * len(batches) // count] for i in range(count)]
    alternating = [batch for pair in zip(chosen, reversed(chosen), strict=True) for batch in pair]
    return alternating[:count]
