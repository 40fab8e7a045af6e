"""`--help`: every option has a text and a group, and every command shows an example call."""

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
    """Yield all commands that are not groups, with their full names."""
    context = click.Context(group)
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        assert command is not None
        if isinstance(command, click.Group):
            yield from every_command(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


NAMES = [name for name, _ in every_command()]


def test_all_commands_are_listed() -> None:
    assert len(NAMES) == 13


@pytest.mark.parametrize("name, command", every_command(), ids=NAMES)
def test_every_option_has_a_help_text_and_a_group(name: str, command: click.Command) -> None:
    assert isinstance(command, cloup.Command)
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{name}: {option.opts[0]} has no help text"
    assert {option.name for option in command.ungrouped_options} == SHARED
    titles = [group.title for group in command.option_groups]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name, command", every_command(), ids=NAMES)
def test_every_command_shows_an_example_call(name: str, command: click.Command) -> None:
    assert f"    {name} " in (command.help or "").replace("\n  ", "\n    ")


def test_help_uses_wide_terminals_up_to_a_limit() -> None:
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
