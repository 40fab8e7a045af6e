"""`cache probe`: probe with a progress bar, and print the ranking."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table

from pipeline.commands.counted import counted
from pipeline.commands.running.console import result_console
from pipeline.probe.run import ProbeResult, probe
from pipeline.probe.settings import ProbeSettings
from pipeline.progress import count_columns, shown_progress

_SCORES = {"label": "right labels", "words": "explained variance of new words"}


def probe_and_report(settings: ProbeSettings, *, as_json: bool) -> dict[str, Any]:
    """Probe a cache; print the ranking unless `as_json`; return the result.

    Raises:
        CacheError, InputError: as `probe`.
    """
    with shown_progress(*count_columns()) as progress:
        result = probe(settings, progress)
    if not as_json:
        console = result_console()
        console.print(_table(result))
        best = result.layers[0].layer
        console.print(f"best: --layers {best}", highlight=False)
    return asdict(result)


def _table(result: ProbeResult) -> Table:
    tested = "" if result.tested is None else f", tested on {result.tested:,}"
    table = Table(
        title=f"{counted(result.classes, result.target.removesuffix('s'))},"
        f" {counted(result.examples, 'example')}{tested}; without states {result.baseline:.1%}"
    )
    table.add_column("layer", justify="right")
    table.add_column(_SCORES[result.target], justify="right")
    table.add_column("standard error", justify="right")
    for score in result.layers:
        error = "–" if score.standard_error is None else f"{score.standard_error:.1%}"
        table.add_row(str(score.layer), f"{score.score:.1%}", error)
    return table
