"""Equality of formulas by math-verify, with a time limit."""

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

MAX_CHARACTERS = 300
"""Longest formula that is compared."""
SECONDS = 5.0
"""Time limit of a comparison, after which the formulas count as different."""
_START_SECONDS = 120.0
_WORKER = Path(__file__).with_name("symbolic_worker.py")
_lock = threading.Lock()


@lru_cache(maxsize=4096)
def same_formula(one: str, other: str) -> bool:
    """Return whether two LaTeX formulas are equal; False if parsing fails or takes too long.

    Raises:
        RunError: math-verify cannot be started.
    """
    if max(len(one), len(other)) > MAX_CHARACTERS:
        return False
    with _lock:
        worker = _worker()
        try:
            return worker.request(json.dumps([one, other])) == "true"
        except (TimeoutError, OSError):
            worker.stop()
            _worker.cache_clear()
            return False


class _Worker:
    """A process with math-verify loaded."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        try:
            ready = self._read_line(_START_SECONDS) == "ready"
        except TimeoutError:
            ready = False
        if not ready:
            self.stop()
            raise RunError(
                "--score math: math-verify cannot be loaded; reinstall this project's requirements"
                " with `pip install .`"
            )
        atexit.register(self.stop)

    def request(self, line: str) -> str:
        """Send a line and return the response.

        Raises:
            TimeoutError: there was no response in time.
            OSError: the process has ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        response = self._read_line(SECONDS)
        if not response:
            raise OSError("the process has ended")
        return response

    def stop(self) -> None:
        """Kill the process and close its streams."""
        atexit.unregister(self.stop)
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # an unsent request
                    continue

    def _read_line(self, seconds: float) -> str:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                raise TimeoutError
        return self._process.stdout.readline().decode().strip()


@lru_cache(maxsize=1)
def _worker() -> _Worker:
    return _Worker()
