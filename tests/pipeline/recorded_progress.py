"""Progress that tests can read."""

from __future__ import annotations

from pipeline.progress import Progress


class RecordedProgress(Progress):
    """Records finished and expected units of each stage, and the sums of the figures."""

    def __init__(self) -> None:
        self.stages: dict[str, tuple[int, int]] = {}
        self.figures: dict[str, float] = {}
        self._stage = ""

    def stage(self, name: str, total: int = 0) -> None:
        self._stage, self.stages[name] = name, (0, total)

    def advance(self, amount: int = 1, **figures: float) -> None:
        done, total = self.stages[self._stage]
        self.stages[self._stage] = done + amount, total
        for name, value in figures.items():
            self.figures[name] = self.figures.get(name, 0.0) + value


class InterruptAfterShard(Progress):
    """Interrupts the extract once a shard is published."""

    def advance(self, amount: int = 1, **figures: float) -> None:
        if figures.get("shards"):
            raise KeyboardInterrupt
