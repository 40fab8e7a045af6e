"""Choice of the engine by its name."""

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
    """Return the engine of a name; see `engine_named`.

    Args:
        plan: the extract.
        name: of the engine.
        address: of a Ray cluster; None: start one on this machine.
        workers: number of Ray actors; None: one per GPU, or one if there is no GPU.

    Raises:
        InputError: the engine is not available, or an option does not apply to it.
    """
    name = engine_named(name, address=address, workers=workers)
    if name == "ray":
        from pipeline.extract.engines.actors import RayEngine  # optional and slow to import

        return RayEngine(plan, address, workers)
    if name == "torchrun":
        from pipeline.extract.engines.ranks import RanksEngine

        return RanksEngine(plan)
    from pipeline.extract.engines.local import LocalEngine

    return LocalEngine(plan)


def engine_named(name: str, *, address: str | None, workers: int | None) -> str:
    """Return the name of an engine; `auto` is torchrun if it started this process, else local.

    Args:
        name: of the engine.
        address, workers: as for `choose_engine`.

    Raises:
        InputError: torchrun did not start this process, or an option does not apply to the engine.
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
