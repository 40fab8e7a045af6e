"""The engine that the user asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import InputError
from pipeline.processes import started_by_torchrun

if TYPE_CHECKING:
    from pipeline.extract.engines.interface import Engine
    from pipeline.extract.plan import ExtractPlan


def choose_engine(
    plan: ExtractPlan, name: str, *, address: str | None, workers: int | None
) -> Engine:
    """Make the engine of that name, as `engine_named` reads it.

    Args:
        plan: the extract.
        name: of the engine.
        address: of a Ray cluster; None: start one on this machine.
        workers: for Ray, how many; None: one a GPU, or one in all where there are none.

    Raises:
        InputError: it is not to be had here, or an option is not for it.
    """
    name = engine_named(name, address=address, workers=workers)
    if name == "ray":
        from pipeline.extract.engines.actors import RayEngine  # an extra, and seconds to load

        return RayEngine(plan, address, workers)
    if name == "torchrun":
        from pipeline.extract.engines.ranks import RanksEngine

        return RanksEngine(plan)
    from pipeline.extract.engines.local import LocalEngine

    return LocalEngine(plan)


def engine_named(name: str, *, address: str | None, workers: int | None) -> str:
    """Which engine a name stands for; `auto` is torchrun's ranks where torchrun has started this
    process, else this process.

    Args:
        name: of the engine.
        address, workers: as for `choose_engine`.

    Raises:
        InputError: torchrun has not started this process, or an option is not for this engine.
    """
    if name == "auto":
        name = "torchrun" if started_by_torchrun() else "local"
    for option, value in (("--address", address), ("--workers", workers)):
        if value is not None and name != "ray":
            raise InputError(f"{option} is for --engine ray, not for --engine {name}")
    if name == "torchrun" and not started_by_torchrun():
        raise InputError(
            "--engine torchrun: torchrun has not started this process; torchrun --nproc-per-node 2"
            " cli.py extract …"
        )
    return name
