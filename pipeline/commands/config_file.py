"""`--config`: a command's options from a file; and the file that repeats a command."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import yaml
from click.core import ParameterSource

from pipeline.commands.list_parameters import Listed

_NOT_KEPT = {"config", "json", "debug", "help", "resume"}
"""Options that say how a command runs this once."""


class _AsWritten(yaml.SafeLoader):
    """YAML whose scalars are texts, as on the command line: 010 is no 8 and -1:2.5 no minute; but
    true, false and null."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there twice."""
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            raise yaml.YAMLError("a name is there twice")
        return found


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
        callback=_take,
        help=(
            "YAML or TOML file with options of this command by name, such as batch-tokens: 4096;"
            " the command line wins."
        ),
    )(function)
    return decorated


def options_as_yaml() -> str:
    """The options that the running command was given, and those it was not as comments: what
    `--config` takes to repeat it."""
    context = click.get_current_context()
    given, left = dict[str, Any](), dict[str, Any]()
    for name, option in _options(context.command).items():
        value = context.params.get(str(option.name))
        if name in _NOT_KEPT or value is None or value == ():
            continue
        is_default = context.get_parameter_source(str(option.name)) is ParameterSource.DEFAULT
        (left if is_default else given)[name] = _plain(value)
    lines = [f"# llm-modules {context.info_name} --config THIS-FILE"]
    lines += [
        yaml.safe_dump({name: value}, allow_unicode=True).strip() for name, value in given.items()
    ]
    lines += ["# the defaults it met:"]
    lines += [
        f"# {line}"
        for line in yaml.safe_dump(left, sort_keys=False, allow_unicode=True).splitlines()
    ]
    return "\n".join(lines) + "\n"


def _take(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    options = _options(context.command)
    taken = dict(context.default_map or {})
    for key, value in _read(path).items():
        name = key.replace("_", "-")
        if name not in options or name in ("config", "help"):
            near = difflib.get_close_matches(name, options, n=1)
            hint = f"; the nearest is {near[0]}" if near else ""
            raise click.UsageError(
                f"{path}: {key} is no option of {context.info_name}{hint}", context
            )
        parameter = str(options[name].name)
        if parameter in taken:
            raise click.UsageError(f"{path}: {key} is named twice", context)
        if value is not None:
            taken[parameter] = _worded(value, options[name], f"{path}: {key}", context)
            try:
                options[name].type_cast_value(context, taken[parameter])
            except click.BadParameter as error:
                raise click.UsageError(f"{path}: {key}: {error.message}", context) from error
    context.default_map = taken


def _options(command: click.Command) -> dict[str, click.Option]:
    """A command's options by their long names, without the dashes."""
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
        found = tomllib.loads(text) if path.suffix == ".toml" else yaml.load(text, _AsWritten)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise click.UsageError(
            f"--config {path}: cannot be read ({' '.join(str(error).split())})"
        ) from error
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise click.UsageError(
            f"--config {path}: holds no options by name, such as batch-tokens: 4096"
        )
    return found


def _worded(value: Any, option: click.Option, where: str, context: click.Context) -> Any:
    """A value as the command line would have had it, so that the option checks and converts it as
    it does there."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise click.UsageError(f"{where}: takes true or false, not {value!r}", context)
        return value
    takes_list = option.multiple or isinstance(option.type, Listed)
    listed = value if isinstance(value, list) and takes_list else [value]
    if any(each is None or isinstance(each, (bool, dict, list)) for each in listed):
        raise click.UsageError(
            f"{where}: takes a text or number{', or a list of them' if takes_list else ''}", context
        )
    return [str(each) for each in listed] if option.multiple else ",".join(map(str, listed))


def _plain(value: Any) -> Any:
    """A parameter's value as YAML knows it."""
    if isinstance(value, (bool, int, float)):
        return value
    return [_plain(each) for each in value] if isinstance(value, (tuple, list)) else str(value)
