"""`--config`: read a command's options from a file, and write the file that repeats a command."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from pipeline.commands.list_parameters import AUTO, LayerList, Listed
from pipeline.commands.options_from import is_given

_NOT_KEPT = {"config", "json", "debug", "help", "resume"}
"""Options that are not part of what a command does."""


class _AsWritten(yaml.SafeLoader):
    """YAML with scalars as text, as on the command line, except true, false and null.

    010 is not 8, and -1:2.5 is not a time.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Raise YAMLError for a duplicate key."""
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise yaml.YAMLError("a name occurs twice")
        return mapping


_AsWritten.yaml_implicit_resolvers = {}
_AsWritten.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("(?:true|false)$"), ["t", "f"]
)
_AsWritten.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile("(?:null|~|)$"), ["n", "~", ""]
)


def config_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--config`."""
    decorated: Callable[..., Any] = click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_read_options,
        help=(
            "YAML or TOML file with options of this command by name, such as device: cpu;"
            " the command line wins."
        ),
    )(function)
    return decorated


def options_as_yaml() -> str:
    """Return a file for `--config` that repeats the running command; defaults are comments."""
    context = click.get_current_context()
    given, defaults = dict[str, Any](), dict[str, Any]()
    for name, option in _options(context.command).items():
        value = context.params.get(str(option.name))
        if isinstance(option.type, LayerList) and option.type.takes_auto and value == ():
            value = AUTO
        is_alias = option.opts.index(f"--{name}") > 0
        if name in _NOT_KEPT or is_alias or value is None or value == ():
            continue
        (given if is_given(str(option.name)) else defaults)[name] = _plain(value)
    lines = [f"# llm-modules {context.info_name} --config THIS-FILE"]
    lines += [
        yaml.safe_dump({name: value}, allow_unicode=True).rstrip("\n")
        for name, value in given.items()
    ]
    lines += ["# defaults:"]
    lines += [
        f"# {line}"
        for line in yaml.safe_dump(defaults, sort_keys=False, allow_unicode=True).splitlines()
    ]
    return "\n".join(lines) + "\n"


def _read_options(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    options = _options(context.command)
    options_map = dict(context.default_map or {})
    for key, value in _read(path).items():
        name = key.replace("_", "-")
        if name not in options or name in ("config", "help"):
            near = difflib.get_close_matches(name, options, n=1)
            hint = f"; the nearest is {near[0]}" if near else ""
            raise click.UsageError(
                f"{path}: {key} is not an option of {context.info_name}{hint}", context
            )
        parameter = str(options[name].name)
        if parameter in options_map:
            raise click.UsageError(f"{path}: {key} occurs twice", context)
        if value is not None:
            options_map[parameter] = _as_text(value, options[name], f"{path}: {key}", context)
            try:
                options[name].type_cast_value(context, options_map[parameter])
            except click.BadParameter as error:
                raise click.UsageError(f"{path}: {key}: {error.message}", context) from error
    context.default_map = options_map


def _options(command: click.Command) -> dict[str, click.Option]:
    """Return a command's options by their long names, without dashes."""
    return {
        word.removeprefix("--"): option
        for option in command.params
        if isinstance(option, click.Option)
        for word in option.opts
        if word.startswith("--")
    }


def _read(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        options = tomllib.loads(text) if path.suffix == ".toml" else yaml.load(text, _AsWritten)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise click.UsageError(
            f"--config {path}: cannot be read ({' '.join(str(error).split())})"
        ) from error
    if options is None:
        return {}
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise click.UsageError(f"--config {path}: has no options by name, such as device: cpu")
    return options


def _as_text(value: Any, option: click.Option, where: str, context: click.Context) -> Any:
    """Return a value as on the command line, where its option checks and converts it."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise click.UsageError(f"{where}: takes true or false, not {value!r}", context)
        return value
    takes_list = option.multiple or isinstance(option.type, Listed)
    items = value if isinstance(value, list) and takes_list else [value]
    if any(item is None or isinstance(item, (bool, dict, list)) for item in items):
        raise click.UsageError(
            f"{where}: takes a text or number{', or a list of them' if takes_list else ''}", context
        )
    return [str(item) for item in items] if option.multiple else ",".join(map(str, items))


def _plain(value: Any) -> Any:
    """Return a parameter's value as a YAML type."""
    if isinstance(value, (bool, int, float)):
        return value
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else str(value)
