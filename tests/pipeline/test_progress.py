"""Progress: bars on terminals, plain lines in logs, nothing for short work."""

from __future__ import annotations

import pytest
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from pipeline import progress
from pipeline.progress import progress_bar, shown_progress

COLUMNS = (
    TextColumn("[bold]{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeRemainingColumn(),
)


def run(steps: int) -> None:
    with progress_bar(*COLUMNS) as bar:
        task = bar.add_task("extract", total=steps)
        for _ in range(steps):
            bar.advance(task)
        bar.update(task, description="done")


def test_a_log_gets_lines_without_control_codes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    run(3)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["extract", "1/3"],
        ["extract", "2/3"],
        ["extract", "3/3"],
        ["done", "3/3"],
    ]
    assert "\x1b" not in err and "\r" not in err


def test_short_work_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    run(1000)
    assert capsys.readouterr() == ("", "")


def test_the_rate_of_lines_is_limited(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 7))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    run(60)
    _, err = capsys.readouterr()
    assert 60 * 7 // 30 - 3 <= len(err.splitlines()) <= 60 * 7 // 30 + 1


def test_a_terminal_gets_a_bar_that_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    bar = progress_bar(*COLUMNS)
    assert not bar.disable
    assert bar.live.transient


def test_stages_replace_each_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with shown_progress(*COLUMNS) as shown:
        shown.advance()  # before the first stage: nothing to count
        shown.stage("load")
        shown.stage("answers", 2)
        shown.advance(2, seconds_waited=1.5)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.split()[:2] == ["answers", "2/2"]
