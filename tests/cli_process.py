"""`python cli.py …` as a process of its own that begins at once: forked from a server which has
imported what commands import.

The libraries take ten seconds to load, and the tests start a hundred processes. What is forked is
as good as what is started: the server has run nothing, holds no model and no file. That `python
cli.py` itself starts is tested in test_cli.py."""

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
    """One command under way, with what it prints; used like `subprocess.Popen`."""

    def __init__(
        self,
        *arguments: object,
        folder: Path = ROOT,
        environment: Mapping[str, str] | None = None,
        terminal: str | None = None,
    ) -> None:
        """Start it; stderr goes to the terminal of that name, if any."""
        self.args = list(map(str, arguments))
        self._folder = tempfile.TemporaryDirectory()  # gone with this object
        self._printed = Path(self._folder.name) / "stdout"
        self._told = Path(terminal) if terminal else self._printed.with_name("stderr")
        with mock.patch.dict(os.environ, SETTINGS | QUIET):
            forkserver.ensure_running()
        self._process = _CONTEXT.Process(
            target=_run,
            args=(self.args, folder, dict(environment or os.environ), self._printed, self._told),
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, or the signal that ended it, negative; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def wait(self, timeout: float | None = 900) -> int:
        """Wait for the end."""
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = 900) -> tuple[str, str]:
        """Wait for the end; all that it has printed."""
        self.wait(timeout)
        return (
            self._printed.read_text(),
            "" if self._told.is_char_device() else self._told.read_text(),
        )

    def send_signal(self, number: int) -> None:
        """As another process would."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """With 9."""
        self.send_signal(signal.SIGKILL)


def run_process(
    *arguments: object,
    folder: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    timeout: float = 900,
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, to its end."""
    process = CliProcess(*arguments, folder=folder, environment=environment)
    stdout, stderr = process.communicate(timeout)
    return subprocess.CompletedProcess(process.args, process.wait(), stdout, stderr)


def _run(
    arguments: list[str], folder: Path, environment: dict[str, str], printed: Path, told: Path
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in ((1, printed), (2, told)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOCTTY)
        os.dup2(opened, number)
        os.close(opened)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored, where tests run in the background of a shell
    sys.argv = [str(ROOT / "cli.py"), *arguments]
    from cli import main

    main()
