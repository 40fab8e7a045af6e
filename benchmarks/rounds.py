"""Measurements in alternating rounds, and their medians."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import click

Measured = TypeVar("Measured")
Figures = dict[str, float]


def alternate(ways: Mapping[str, Callable[[], Measured]], rounds: int) -> dict[str, list[Measured]]:
    """Measure all ways in turn, `rounds` times; return the measurements of each way."""
    measured: dict[str, list[Measured]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, measure in ways.items():
            measured[name].append(measure())
            click.echo(f"round {number + 1} of {rounds}, {name}: {measured[name][-1]}", err=True)
    return measured


def medians(rounds: Sequence[Figures]) -> Figures:
    """Return the median of each figure over the rounds."""
    return {name: statistics.median(own[name] for own in rounds) for name in rounds[0]}
