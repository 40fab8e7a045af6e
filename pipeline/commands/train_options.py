"""The options of one training run, for every command that trains."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields, replace
from typing import Any

import click
from click.core import ParameterSource

from pipeline.commands.options_from import is_given, option_section
from pipeline.errors import InputError
from pipeline.runs.defaults import with_defaults
from pipeline.runs.options import (
    LearningOptions,
    MachineOptions,
    OptimiserOptions,
    StudentOptions,
)
from pipeline.runs.settings import TrainSettings
from pipeline.shapes import BridgeShape

_SECTIONS = {
    "The student": StudentOptions,
    "Enhanced Cross-Attention": BridgeShape,
    "Training data": LearningOptions,
    "Optimiser": OptimiserOptions,
    "Device and logs": MachineOptions,
}
_DEFAULTS = {
    field.name: field.default for field in fields(TrainSettings) if field.default is not MISSING
}


def train_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all options of a run but its cache and folder."""
    for title, section in reversed(_SECTIONS.items()):
        function = option_section(title, section)(function)
    return function


def train_settings(options: Mapping[str, Any], varied: Collection[str] = ()) -> TrainSettings:
    """Return the settings from the running command's options.

    Args:
        options: values by field.
        varied: fields that a sweep will set later.

    Raises:
        InputError: two options contradict each other.
    """
    given = {name for name in _DEFAULTS if name in varied or is_given(name)}
    settings = with_defaults(TrainSettings(**options), given)
    click.get_current_context().params |= {
        name: getattr(settings, name) for name in {*_DEFAULTS} - given
    }
    weaker, stronger = sorted(
        ("batch_size", "batch_tokens"), key=lambda name: _priority(name, varied)
    )
    settings = _reset_overridden(
        settings, weaker, stronger, varied, "--batch-size and --batch-tokens: use one of them"
    )
    if "condition" in varied:
        return settings
    used = settings.conditioning.sizes_bridge_by
    unused = "cross_every" if used == "cross_layers" else "cross_layers"
    problem = (
        f"--{unused.replace('_', '-')}: with --condition {settings.condition} use"
        f" --{used.replace('_', '-')}"
    )
    return _reset_overridden(settings, unused, "condition", varied, problem)


def _reset_overridden(
    settings: TrainSettings, name: str, other: str, varied: Collection[str], problem: str
) -> TrainSettings:
    """Reset an option to its default if an option that excludes it has priority.

    Raises:
        InputError: neither has priority; with the text `problem`.
    """
    priority = _priority(name, varied)
    if priority >= max(1, _priority(other, varied)):
        raise InputError(problem)
    return replace(settings, **{name: _DEFAULTS[name]}) if priority else settings


def _priority(name: str, varied: Collection[str]) -> int:
    """Return 2 for options on the command line, 1 for those of an options file, else 0."""
    if name in varied:
        return 2
    source = click.get_current_context().get_parameter_source(name)
    priorities = {ParameterSource.COMMANDLINE: 2, ParameterSource.DEFAULT_MAP: 1}
    return priorities.get(source, 0) if source else 0
