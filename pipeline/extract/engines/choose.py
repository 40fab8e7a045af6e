"""Choice of the engine by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import InputError
from pipeline.extract.options import EngineOptions
from pipeline.processes import started_by_torchrun

if TYPE_CHECKING:
    from pipeline.extract.engines.interface import Engine
    from pipeline.extract.plan import ExtractPlan


def choose_engine(plan: ExtractPlan, options: EngineOptions) -> Engine:
    """Return the engine of an extract.

    Raises:
        InputError: the engine is not available, or an option does not apply to it.
    """
    name = engine_named(options)
    if name == "ray":
        from pipeline.extract.engines.actors import RayEngine  # optional and slow to import

        return RayEngine(plan, options.address, options.workers)
    if name == "torchrun":
        from pipeline.extract.engines.ranks import RanksEngine

        return RanksEngine(plan)
    from pipeline.extract.engines.local import LocalEngine

    return LocalEngine(plan)


def engine_named(options: EngineOptions) -> str:
    """Return the name of the engine; `auto` is torchrun if it started this process, else local.

    Raises:
        InputError: torchrun did not start this process, or an option does not apply to the engine.
    """
    name: str = options.engine
    if name == "auto":
        name = "torchrun" if started_by_torchrun() else "local"
    for option, value in (("--address", options.address), ("--workers", options.workers)):
        if value is not None and name != "ray":
            raise InputError(f"{option} is for --engine ray, not for --engine {name}; omit it")
    if name == "torchrun" and not started_by_torchrun():
        raise InputError(
            "--engine torchrun: torchrun has not started this process; use torchrun"
            " --nproc-per-node 2 cli.py extract …"
        )
    return name
