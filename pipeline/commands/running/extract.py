"""`extract`: extract with a progress bar, or forecast, and print the result."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import click
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from pipeline.commands.counted import counted
from pipeline.commands.running.left_out import lines_left_out
from pipeline.extract.engines.choose import choose_engine
from pipeline.extract.engines.interface import Engine
from pipeline.extract.forecast import Forecast, forecast
from pipeline.extract.options import EngineOptions
from pipeline.extract.plan import ExtractPlan
from pipeline.extract.prepare import prepare
from pipeline.extract.run import ExtractResult, extract
from pipeline.extract.settings import ExtractSettings
from pipeline.processes import is_main_process
from pipeline.progress import BarProgress, TokenCount, progress_bar, shown_progress

_SLOW_DISK = 0.05
"""Share of time spent waiting for the disk above which the progress line reports it."""


def extract_or_plan(
    settings: ExtractSettings, options: EngineOptions, *, plan_only: bool, as_json: bool
) -> dict[str, Any]:
    """Extract, or only forecast it; print the result unless `as_json`; return it.

    Raises:
        CacheError, InputError, RunError: as `prepare` and `extract`.
    """
    plan = prepare(settings)
    if plan_only:
        if not is_main_process():
            raise SystemExit(0)
        return _plan(plan, as_json=as_json)
    with choose_engine(plan, options) as engine:
        if not engine.leads:
            engine.follow()
            raise SystemExit(0)  # the leading process reports
        result = _run(plan, engine)
    if not as_json:
        click.echo(_in_words(result))
    return asdict(result)


def _run(plan: ExtractPlan, engine: Engine) -> ExtractResult:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TokenCount(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with progress_bar(*columns) as bar:
        return extract(plan, _ExtractProgress(bar, plan.manifest.shards), engine)


class _ExtractProgress(BarProgress):
    """Adds published shards, their size, and how long the teacher waited for the disk."""

    def __init__(self, bar: Bar, shards: int) -> None:
        super().__init__(bar, note="")
        self._shards, self._began = shards, time.perf_counter()
        self._published = self._bytes = self._waited = 0.0

    def stage(self, name: str, total: int = 0) -> None:
        """Restart the clock too."""
        super().stage(name, total)
        self._began = time.perf_counter()

    def advance(
        self,
        amount: int = 1,
        *,
        shards: float = 0,
        bytes: float = 0,
        seconds_waited: float = 0,
        **figures: float,
    ) -> None:
        """Add what was published."""
        self._published += shards
        self._bytes += bytes
        self._waited += seconds_waited
        note = ""
        if self._published:
            note = f"{self._published:.0f}/{self._shards} shards  {self._bytes / 1e6:,.1f} MB"
        if self._waited > _SLOW_DISK * (time.perf_counter() - self._began):
            note += f"  waiting for the disk: {self._waited:.0f} s"
        self.update(amount, note=note)


def _plan(plan: ExtractPlan, *, as_json: bool) -> dict[str, Any]:
    columns = TextColumn("plan: {task.description}"), TimeElapsedColumn()
    with shown_progress(*columns) as progress:
        expected = forecast(plan, progress)
    if not as_json:
        click.echo(_forecast_in_words(plan, expected))
    return asdict(expected)


def _forecast_in_words(plan: ExtractPlan, expected: Forecast) -> str:
    settings = plan.settings
    left_out = (
        ", ".join(f"{count} {reason}" for reason, count in expected.left_out.items()) or "none"
    )
    lines = [
        (
            f"{expected.cache}: {counted(expected.examples, 'example')},"
            f" {counted(expected.tokens, 'token')} in {counted(expected.shards, 'shard')},"
            f" {expected.missing_shards} of them missing; {expected.stored_tokens:,}"
            " tokens to compute and store"
        ),
        f"left out: {left_out}",
        *([f"nothing is shared: {expected.unshared}"] if expected.unshared else []),
        *(
            f"{'->' if (container, codec) == (settings.format, plan.manifest.codec) else '  '}"
            f" {container} {codec}: {'about ' if codec in expected.approximate else ''}{size:,}"
            " bytes"
            for container, sizes in expected.bytes.items()
            for codec, size in sizes.items()
        ),
        (
            f"disk: {expected.free_bytes / 1e9:,.2f} GB free, {expected.needed_bytes / 1e9:,.2f} GB"
            " needed -"
            f" {'it fits' if expected.fits else 'TOO LITTLE, extract will refuse to start'}"
        ),
    ]
    if expected.tokens_per_second:
        lines.append(
            f"time: about {timedelta(seconds=round(expected.seconds))} at"
            f" {expected.tokens_per_second:,.0f} tokens/s ({expected.compute_dtype} on"
            f" {expected.device}; measured on {expected.probe_tokens:,} tokens), and"
            f" {expected.load_seconds:.0f} s to load the teacher"
        )
    return "\n".join(lines)


def _in_words(result: ExtractResult) -> str:
    speed = (
        "all shards existed"
        if result.tokens_per_second is None
        else f"{result.tokens_per_second:,.0f} tokens/s"
    )
    return (
        f"{result.cache}: {counted(result.examples, 'example')}, {counted(result.tokens, 'token')}"
        f" ({result.stored_tokens:,} stored) in {counted(result.shards, 'shard')}"
        f" ({result.resumed_shards} resumed), {result.bytes / 1e6:,.1f} MB\n"
        + lines_left_out(result.left_out, result.first_left_out, result.unread)
        + (f"nothing is shared: {result.unshared}\n" if result.unshared else "")
        + f"{result.seconds:.1f} s, {speed}; content digest {result.content_digest[:16]}…"
    )
