"""`--help`: every option teaches, stands where one looks for it, and every command shows how it is
called."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import click
import cloup
import pytest

from pipeline.commands import main
from tests.conftest import ROOT

SHARED = {"config", "as_json", "debug"}


def every_command(
    group: click.Group = main, name: str = "llm-modules"
) -> Iterator[tuple[str, click.Command]]:
    """All commands that do something, by what one types."""
    context = click.Context(group)
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        assert command is not None
        if isinstance(command, click.Group):
            yield from every_command(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


NAMES = [name for name, _ in every_command()]


def test_all_commands_are_found() -> None:
    assert len(NAMES) == 11


@pytest.mark.parametrize("name, command", every_command(), ids=NAMES)
def test_every_option_teaches_and_has_its_place(name: str, command: click.Command) -> None:
    assert isinstance(command, cloup.Command)
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{name}: {option.opts[0]} says nothing"
    assert {option.name for option in command.ungrouped_options} == SHARED
    titles = [group.title for group in command.option_groups]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name, command", every_command(), ids=NAMES)
def test_every_command_shows_how_it_is_called(name: str, command: click.Command) -> None:
    assert f"    {name} " in (command.help or "").replace("\n  ", "\n    ")


def test_help_fits_the_terminal_up_to_a_width() -> None:
    environment = os.environ | {"COLUMNS": "200"}
    printed = subprocess.run(
        [sys.executable, ROOT / "cli.py", "cache", "repair", "--help"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    prose = [line for line in printed.splitlines() if not line.startswith("    llm-modules")]
    assert 98 < max(map(len, prose)) <= 110
