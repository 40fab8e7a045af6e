"""The shell around all commands: shared options, lazy imports, errors and exit statuses."""

from __future__ import annotations

import errno
import functools
import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from cache.errors import CacheError, DamagedCacheError
from pipeline.commands.config_file import config_option
from pipeline.commands.libraries import configure_libraries, quiet_libraries
from pipeline.commands.terminal import configure_streams
from pipeline.errors import InputError, RunError

_COMMANDS = {
    "extract": "Run the frozen teacher once over a data set, into a cache.",
    "train": "Train a student from a cache; the teacher is never loaded.",
    "sweep": "Train a grid of students from one cache, and compare them.",
    "evaluate": "Show with numbers and controls what was transferred.",
    "generate": "Answer one prompt with a trained student.",
    "chat": "Talk with a trained student.",
    "answer": "Write a data set of a teacher's own answers.",
    "cache": "Inspect, verify, repair or convert a cache.",
}

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

_NARROWEST = 50
"""Fewest columns for formatting help; narrower terminals wrap its lines."""
_CONTINUE = "to continue, repeat the command (train: with --resume)"


class LazyCommands(click.Group):
    """A group that imports a command's module only when the command is used."""

    def __init__(self, *args: Any, package: str, table: Mapping[str, str], **kwargs: Any) -> None:
        """Take commands from the modules of a package; the table has their one-line help."""
        super().__init__(*args, **kwargs)
        self._package, self._table = package, table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all commands in the order of the table."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a name."""
        if cmd_name not in self._table:
            return None
        command: click.Command = getattr(
            importlib.import_module(f"{self._package}.{cmd_name}"), cmd_name
        )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve as click does, and suggest the nearest name for an unknown one."""
        import difflib

        if args[0] not in self._table and (
            near := difflib.get_close_matches(args[0], self._table, 1)
        ):
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{near[0]}'?")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands and the group's options, without importing any command."""
        named = [
            CompletionItem(name, help=text)
            for name, text in self._table.items()
            if name.startswith(incomplete)
        ]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._table.items()))


class Shell(LazyCommands):
    """The whole command line; exits the process."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line and exit; wrong usage gets one line and exit status 2."""
        configure_streams()
        configure_libraries()
        signal.signal(signal.SIGTERM, _terminated)
        try:
            narrow = (
                {"terminal_width": _NARROWEST}
                if shutil.get_terminal_size().columns < _NARROWEST
                else {}
            )
            status = super().main(*args, **{**narrow, **kwargs, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(2)
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "llm-modules"
            message = error.format_message().rstrip(".")
            _fail(
                (
                    f"{message} See `{path} --help`"
                    if message.endswith("?")
                    else f"{message}; see `{path} --help`"
                ),
                2,
            )
        except click.ClickException as error:
            _fail(error.format_message(), 2)
        except (click.Abort, KeyboardInterrupt) as error:
            _fail(_stopped(error), 1)
        except OSError as error:
            _end(error)
        sys.exit(status if isinstance(status, int) else 0)


@click.group(cls=Shell, package="pipeline.commands", table=_COMMANDS, context_settings=_SETTINGS)
@click.version_option(package_name="llm-modules")
def main() -> None:
    """Train a small model on what a frozen large one knows, from cached hidden states.

    The pipeline has three steps; --teacher and --dataset are embedded ones by default:

    \b
      llm-modules extract  --cache CACHE --layers -1,0
      llm-modules train    --cache CACHE --run RUN --controls
      llm-modules evaluate --run RUN

    Results go to stdout, progress to stderr. Exit status: 0 done, 1 a run failed, 2 wrong usage or
    input."""


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--config`, `--json` and `--debug`, quiet libraries, and one-line errors.

    The function returns the object that `--json` prints; unless `as_json`, it also prints text.
    """

    @config_option
    @click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object on stdout instead of text."
    )
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(function)
    def wrapped(*args: Any, as_json: bool, debug: bool, **kwargs: Any) -> None:
        if not debug:
            quiet_libraries()
        try:
            _require_current_folder()
            result = function(*args, as_json=as_json, **kwargs)
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, (click.exceptions.Exit, click.ClickException)):
                raise
            if debug:
                import traceback

                traceback.print_exc()
            _end(error)
        if as_json:
            click.echo(json.dumps(result))

    return wrapped


def _end(error: BaseException) -> NoReturn:
    """Print one line on stderr, and exit with the status of the failure."""
    status = (
        2
        if isinstance(error, (InputError, CacheError)) and not isinstance(error, DamagedCacheError)
        else 1
    )
    if isinstance(error, KeyboardInterrupt):
        message = _stopped(error)
    elif isinstance(error, (InputError, CacheError, RunError)):
        message = str(error)
    elif any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT)):
        # Libraries raise this as errors of all types.
        message = f"the disk is full; free some space, then {_CONTINUE}"
    elif isinstance(error, OSError):
        message = (
            f"{error.filename or 'file system'}: {error.strerror or error}; after fixing this,"
            f" {_CONTINUE}"
        )
    else:
        message = f"{type(error).__name__}: {error} (unexpected; --debug shows where)"
    _fail(message, status)


def _require_current_folder() -> None:
    """Raise InputError without a current folder; libraries would end the process."""
    try:
        Path.cwd()
    except OSError as error:
        raise InputError(
            f"the current folder is not usable ({error.strerror}); run this from another folder"
        ) from error


def _stopped(error: BaseException) -> str:
    cause = str(error) or "Ctrl-C"
    return f"stopped ({cause}); published shards, checkpoints and answers are kept; {_CONTINUE}"


def _fail(message: str, status: int) -> NoReturn:
    click.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(status)


def _terminated(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt("SIGTERM")
