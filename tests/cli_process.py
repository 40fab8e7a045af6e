"""Commands in separate processes, forked from a server that has imported their libraries.

The libraries take ten seconds to load, and the tests start a hundred processes. A fork equals a new
process, as the server has run nothing and holds no model or file. test_cli.py tests that `python
cli.py` itself starts.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

from pipeline.commands.libraries import QUIET, SETTINGS

ROOT = Path(__file__).parent.parent
_COMMANDS = (
    "answer",
    "extract",
    "train",
    "evaluate",
    "generate",
    "cache_convert",
    "cache_verify",
    "cache_repair",
)
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["cli", *(f"pipeline.commands.running.{name}" for name in _COMMANDS)]
)


class CliProcess:
    """A running command and its output; used like `subprocess.Popen`."""

    def __init__(
        self,
        *arguments: object,
        folder: Path = ROOT,
        environment: Mapping[str, str] | None = None,
        terminal: str | None = None,
    ) -> None:
        """Start a command; stderr goes to the named terminal, if any."""
        self.args = list(map(str, arguments))
        self._folder = tempfile.TemporaryDirectory()  # removed with this object
        self._stdout = Path(self._folder.name) / "stdout"
        self._stderr = Path(terminal) if terminal else self._stdout.with_name("stderr")
        with mock.patch.dict(os.environ, SETTINGS | QUIET):
            forkserver.ensure_running()
        self._process = _CONTEXT.Process(
            target=_run,
            args=(self.args, folder, dict(environment or os.environ), self._stdout, self._stderr),
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """Return the process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Return the exit status, the negative signal number, or None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return `returncode`."""
        return self.returncode

    def wait(self, timeout: float | None = 900) -> int:
        """Wait for the end."""
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = 900) -> tuple[str, str]:
        """Wait for the end, and return stdout and stderr."""
        self.wait(timeout)
        stderr = "" if self._stderr.is_char_device() else self._stderr.read_text()
        return self._stdout.read_text(), stderr

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run_process(
    *arguments: object,
    folder: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    timeout: float = 900,
) -> subprocess.CompletedProcess[str]:
    """Run a command in a separate process and wait for it."""
    process = CliProcess(*arguments, folder=folder, environment=environment)
    stdout, stderr = process.communicate(timeout)
    return subprocess.CompletedProcess(process.args, process.wait(), stdout, stderr)


def _run(
    arguments: list[str], folder: Path, environment: dict[str, str], stdout: Path, stderr: Path
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in ((1, stdout), (2, stderr)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOCTTY)
        os.dup2(opened, number)
        os.close(opened)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
    sys.argv = [str(ROOT / "cli.py"), *arguments]
    from cli import main

    main()
