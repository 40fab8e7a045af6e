"""Output at a terminal: progress bars are drawn on stderr, and only results on stdout."""

from __future__ import annotations

import os
import pty
import subprocess
import threading
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from pipeline.progress import TokenCount
from tests.cli_process import CliProcess


def at_a_terminal(*words: object) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run a command with stderr on a terminal; return the process and the terminal's content."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # its other end is closed
                return
            if not piece:
                return
            shown.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    process = CliProcess(*words, terminal=os.ttyname(theirs))
    stdout, _ = process.communicate(timeout=300)
    os.close(theirs)
    reader.join()
    os.close(ours)
    done = subprocess.CompletedProcess(process.args, process.wait(), stdout)
    return done, b"".join(shown).decode(errors="replace")


@pytest.mark.timeout(900)
def test_every_progress_bar_is_drawn(tmp_path: Path) -> None:
    cache, run = tmp_path / "cache", tmp_path / "run"
    rows = ("--limit", 40, "--shard-tokens", 1500)
    coded = ("--codec", "-1:klt", "--fidelity", "-1:kl=0.05", "--calibration-tokens", 2000)
    for bar, words in {
        "extract": ("extract", "--cache", cache, "--layers", "-1,0", *rows, *coded),
        "verify": ("cache", "verify", cache, "--deep"),
        "student": ("train", "--cache", cache, "--run", run, "--max-steps", 3, "--batch-size", 4),
        "validation loss": ("evaluate", "--run", run, "--samples", 2, "--max-new-tokens", 4),
    }.items():
        done, shown = at_a_terminal(*words)
        assert done.returncode == 0, shown
        assert "error" not in shown and "Traceback" not in shown
        assert "\x1b" in shown, f"{bar}: no bar"
        assert "\x1b" not in done.stdout


def test_no_color_disables_colours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    done, shown = at_a_terminal("extract", "--cache", tmp_path / "cache", "--limit", 4)
    assert done.returncode == 0, shown
    assert not any(f"\x1b[{colour}m" in shown for colour in (*range(30, 38), *range(90, 98)))
    assert "\x1b[38;" not in shown


def test_tokens_are_counted_before_their_total_is_known() -> None:
    console = Console(force_terminal=True, record=True, width=100)
    with Progress(
        TokenCount(), TextColumn("{task.description}"), console=console, auto_refresh=False
    ) as bar:
        first, second = bar.add_task("first", total=None), bar.add_task("second", total=2000)
        bar.update(second, advance=1000)
        bar.refresh()
        bar.update(first, advance=5)
        bar.refresh()
    shown = " ".join(console.export_text().split())
    assert "5 tokens first" in shown
    assert "1,000/2,000 tokens" in shown
