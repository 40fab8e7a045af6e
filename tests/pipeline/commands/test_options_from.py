"""Options made from settings: each field's type, default and limits are those of its option."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin, get_type_hints

import click
import cloup
import pytest
from click.testing import CliRunner

from pipeline.answering.settings import AnswerSettings
from pipeline.commands.options_from import option_section, take_fields
from pipeline.conditions.registry import CONDITIONS
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.extract.options import EngineOptions
from pipeline.extract.settings import ExtractSettings
from pipeline.generation.settings import Sampling, WriterSettings
from pipeline.option import Option
from pipeline.probe.settings import ProbeSettings
from pipeline.runs.options import StudentOptions
from pipeline.runs.settings import TrainSettings
from pipeline.upkeep.settings import (
    FidelitySettings,
    RecheckSettings,
    RecodeSettings,
    RepairSettings,
)
from tests.test_help import every_command

OF_COMMAND: dict[str, list[type]] = {
    "extract": [ExtractSettings, EngineOptions],
    "train": [TrainSettings],
    "sweep": [TrainSettings],
    "evaluate": [EvaluateSettings],
    "generate": [WriterSettings, Sampling],
    "chat": [WriterSettings, Sampling],
    "answer": [AnswerSettings],
    "cache verify": [RecheckSettings],
    "cache repair": [RepairSettings],
    "cache fidelity": [FidelitySettings],
    "cache probe": [ProbeSettings],
    "cache convert": [RecodeSettings],
}
ELSEWHERE = {"sweep": {"run"}}
"""Fields that another option of the command sets."""


@dataclass(frozen=True, kw_only=True)
class Some:
    place: Annotated[Path, Option("A folder.")]
    there: Annotated[Path | None, Option("A folder that exists.", exists=True)] = None
    name: Annotated[str | None, Option("A name.", default="none at all")] = None
    kind: Annotated[Literal["a", "b"], Option("A kind.")] = "b"
    layers: Annotated[tuple[int, ...], Option("Layers.")] = (-1,)
    words: Annotated[tuple[str, ...], Option("Words.", name="word")] = ()
    listed: Annotated[tuple[str, ...], Option("Listed.", with_commas=True)] = ()
    share: Annotated[float, Option("A share.", above=0, at_most=1)] = 0.5
    count: Annotated[int | None, Option("A count.", at_least=2)] = None
    seed: Annotated[int, Option("A seed.")] = 0
    off: Annotated[bool, Option("A flag.")] = False
    on: Annotated[bool, Option("Another flag.")] = True
    maybe: Annotated[bool, Option("A third one.", negatable=True)] = False
    recorded: str = "not an option"


@cloup.command()
@option_section("Some options", Some)
def some(**options: Any) -> None:
    print(Some(**options))


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(some, words)
    return result.exit_code, result.output.strip()


def test_defaults_are_those_of_the_fields() -> None:
    assert run("--place", "x") == (0, str(Some(place=Path("x"))))


def test_values_reach_their_fields() -> None:
    words = (
        "--place x --name n --kind a --layers -1,0 --word p --word q --listed r,s --share 1"
        " --count 2 --seed 3 --off --no-on --maybe"
    )
    expected = Some(
        place=Path("x"),
        name="n",
        kind="a",
        layers=(-1, 0),
        words=("p", "q"),
        listed=("r", "s"),
        share=1.0,
        count=2,
        seed=3,
        off=True,
        on=False,
        maybe=True,
    )
    assert run("--place", "x", "--maybe", "--no-maybe") == (0, str(Some(place=Path("x"))))
    assert run(*words.split()) == (0, str(expected))


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--place x --kind c",
        "--place x --share 0",
        "--place x --share 1.1",
        "--place x --count 1",
        "--place x --there /nonexistent",
        "--place x --there /nonexistent",
        "--place x --layers one",
        "--place x --recorded y",
    ],
)
def test_wrong_values_are_usage_errors(words: str) -> None:
    assert run(*words.split())[0] == 2


def test_help_shows_what_a_default_means() -> None:
    _, text = run("--help")
    shown = " ".join(text.split())
    for part in ("[default: none at all]", "[default: b]", "[default: -1]", "[default: 0]"):
        assert part in shown
    assert "Some options:" in text and "--recorded" not in text


def test_fields_of_bases_belong_to_other_sections() -> None:
    @dataclass(frozen=True, kw_only=True)
    class More(Some):
        extra: Annotated[int, Option("An extra.")] = 1

    globals()["More"] = More
    try:
        own = cloup.command()(option_section("More", More)(lambda: None))
        chosen = cloup.command()(option_section("More", More, fields=["kind"])(lambda: None))
    finally:
        del globals()["More"]
    assert [option.name for option in own.params] == ["extra"]
    assert [option.name for option in chosen.params] == ["kind"]


def test_fields_are_taken_out_of_the_options() -> None:
    options = {"max_new_tokens": 1, "temperature": 0.0, "top_p": 1.0, "seed": 0, "stop": (), "x": 2}
    assert Sampling(**take_fields(Sampling, options)) == Sampling(max_new_tokens=1)
    assert options == {"x": 2}


def commands() -> Iterator[tuple[str, click.Command]]:
    return ((name.partition(" ")[2], command) for name, command in every_command())


@pytest.mark.parametrize(("name", "settings"), OF_COMMAND.items())
def test_each_field_is_an_option_of_its_command(name: str, settings: list[type]) -> None:
    command = dict(commands())[name]
    parameters = {parameter.name: parameter for parameter in command.params}
    context = click.Context(command)
    for part in settings:
        hints = get_type_hints(part, include_extras=True)
        for field in dataclasses.fields(part):
            if get_origin(hints[field.name]) is not Annotated:
                continue
            if field.name in ELSEWHERE.get(name, set()):
                continue
            parameter = parameters[field.name]
            if field.default is dataclasses.MISSING:
                assert parameter.required
            else:
                default = parameter.type_cast_value(context, parameter.get_default(context))
                assert default == field.default, field.name


def test_conditions_of_the_option_are_those_of_the_registry() -> None:
    option = next(
        option for option in dict(commands())["train"].params if option.name == "condition"
    )
    assert isinstance(option.type, click.Choice)
    assert list(option.type.choices) == list(CONDITIONS)
    assert StudentOptions().condition == next(iter(CONDITIONS))
