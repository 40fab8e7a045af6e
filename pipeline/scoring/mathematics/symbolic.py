"""Whether two formulas are equal, by math-verify; never longer than a moment."""

from __future__ import annotations

import atexit
import json
import os
import selectors
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path

from pipeline.errors import RunError

LONGEST = 300
"""Characters of a formula that is looked at."""
SECONDS = 5.0
"""What a comparison may take; what takes longer counts as different."""
_START_SECONDS = 120.0
_WORKER = Path(__file__).with_name("symbolic_worker.py")
_lock = threading.Lock()


@lru_cache(maxsize=4096)
def same_formula(one: str, other: str) -> bool:
    """Whether two formulas in LaTeX are equal; what cannot be read, or takes too long, is equal to
    nothing.

    Raises:
        RunError: math-verify cannot be started.
    """
    if max(len(one), len(other)) > LONGEST:
        return False
    with _lock:
        worker = _worker()
        try:
            return worker.ask(json.dumps([one, other])) == "true"
        except (TimeoutError, OSError):
            worker.end()
            _worker.cache_clear()
            return False


class _Worker:
    """The process that has math-verify loaded."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        try:
            ready = self._line(_START_SECONDS) == "ready"
        except TimeoutError:
            ready = False
        if not ready:
            self.end()
            raise RunError(
                "--score math: math-verify cannot be loaded; install this project's requirements"
                " again: pip install ."
            )
        atexit.register(self.end)

    def ask(self, line: str) -> str:
        """What it answers to a line.

        Raises:
            TimeoutError: nothing came in time.
            OSError: it has ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        answer = self._line(SECONDS)
        if not answer:
            raise OSError("ended")
        return answer

    def end(self) -> None:
        """End the process."""
        atexit.unregister(self.end)
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # what it was to read next
                    continue

    def _line(self, seconds: float) -> str:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                raise TimeoutError
        return self._process.stdout.readline().decode().strip()


@lru_cache(maxsize=1)
def _worker() -> _Worker:
    return _Worker()
