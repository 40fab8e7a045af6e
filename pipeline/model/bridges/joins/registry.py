"""The join class of each value of `--join`."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.model.bridges.interface import CrossLayers
from pipeline.model.bridges.joins.add import AddJoin
from pipeline.model.bridges.joins.cross import CrossJoin
from pipeline.model.bridges.joins.interface import Join
from pipeline.model.configuration import LLMModulesConfig

JOINS: dict[str, Callable[[LLMModulesConfig, CrossLayers], Join]] = {
    "cross": CrossJoin,
    "add": lambda config, _: AddJoin(config),
}
"""In the order in which they change the inputs of the body."""
