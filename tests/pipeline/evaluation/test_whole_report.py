"""The report of an evaluation as a page, in a browser, and in a comparison of runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.runs.folder import RunFolder
from tests.conftest import RunCli
from tests.pipeline.evaluation.conftest import WholeEvaluation

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MEASURE = """<script>window.addEventListener("load", () => { document.title = JSON.stringify({
  background: getComputedStyle(document.body).backgroundColor,
  overflow: document.documentElement.scrollWidth - window.innerWidth,
  plots: [...document.querySelectorAll("svg")].filter(plot => plot.closest("figure"))
         .map(plot => plot.getBoundingClientRect().height),
  fetched: performance.getEntriesByType("resource").length,
  verdict: document.querySelector(".verdict").innerText }) })</script></body>"""


def test_the_report_is_self_contained_and_its_plots_are_also_files(whole: WholeEvaluation) -> None:
    folder = whole.run / "evaluation"
    page = (folder / "report.html").read_text()
    assert whole.results["verdict"] in page
    assert [name for name in whole.students if name not in page] == []
    for heading in (
        *("Cost", "Leak of the published attention", "Ablations", "lm-evaluation-harness"),
        *("Samples", "Codec distortion", "Settings and identity"),
    ):
        assert heading in page
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page) and "@import" not in page
    for name in ("runs", "loss", "codec--1"):
        assert (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.skipif(BROWSER is None, reason="no headless Chromium is installed")
@pytest.mark.parametrize(
    ("scheme", "background"), [(0, "rgb(21, 24, 27)"), (1, "rgb(251, 251, 249)")]
)
@pytest.mark.parametrize("width", [1100, 420])
def test_a_browser_shows_the_whole_page_in_light_and_dark(
    scheme: int, background: str, width: int, whole: WholeEvaluation, tmp_path: Path
) -> None:
    page = (whole.run / "evaluation/report.html").read_text().replace("</body>", MEASURE)
    (tmp_path / "report.html").write_text(page)
    assert BROWSER is not None
    command = [
        *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"),
        f"--window-size={width},900",
        f"--blink-settings=preferredColorScheme={scheme}",
        f"--user-data-dir={tmp_path / 'profile'}",
        (tmp_path / "report.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None, done.stderr
    measured = json.loads(title[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))
    assert measured["background"] == background
    assert measured["overflow"] <= 0
    assert measured["fetched"] == 0
    assert len(measured["plots"]) == 3 and min(measured["plots"]) > 30
    assert measured["verdict"].split() == whole.results["verdict"].split()


def copy_with_seed_1(run: Path, copy: Path, **changes: object) -> Path:
    """Copy a run as if it had another seed, and other settings."""
    folder = RunFolder(shutil.copytree(run, copy))
    record = folder.read_record()
    settings = replace(record.settings, seed=1, **changes)  # type: ignore[arg-type]
    folder.write_record(replace(record, settings=settings))
    return copy


def test_runs_are_compared_in_groups_of_equal_settings(
    whole: WholeEvaluation, run_cli: RunCli, tmp_path: Path
) -> None:
    other = copy_with_seed_1(whole.run, tmp_path / "other")
    third = copy_with_seed_1(whole.run, tmp_path / "third", epochs=9)
    results = json.loads((other / "evaluation/results.json").read_text())
    results["students"][0]["val_loss"] += 0.2
    (other / "evaluation/results.json").write_text(json.dumps(results))
    out = tmp_path / "out"
    done = run_cli("evaluate", "--compare", whole.run, other, third, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    comparison = json.loads(done.stdout)
    groups = comparison["groups"]
    assert comparison["apart"] == ["epochs"]
    assert [(group["label"], group["seeds"]) for group in groups] == [
        ("epochs 2", [0, 1]),
        ("epochs 9", [1]),
    ]
    loss = groups[0]["rows"][0]["figures"]["val_loss"]
    assert loss["mean"] == pytest.approx(whole.students["student"]["val_loss"] + 0.1)
    assert loss["high"] - loss["low"] == pytest.approx(0.2)
    assert "| student | " in (out / "comparison.md").read_text()
    assert "epochs 9" in (out / "comparison.html").read_text()


def test_evaluations_with_other_options_are_not_averaged(
    whole: WholeEvaluation, run_cli: RunCli, tmp_path: Path
) -> None:
    other, out = copy_with_seed_1(whole.run, tmp_path / "other"), tmp_path / "out"
    compare = ("evaluate", "--compare", whole.run, other, "--out", out)
    averaged = run_cli(*compare)
    assert "distilled" in averaged.stdout
    assert "not averaged" not in averaged.stdout
    results = json.loads((other / "evaluation/results.json").read_text())
    results["asked"]["samples"] += 1
    (other / "evaluation/results.json").write_text(json.dumps(results))
    done = run_cli(*compare)
    assert "not averaged across groups, which differ in: samples" in done.stdout
    assert "which differ in: samples." in (out / "comparison.md").read_text()


def test_damaged_results_are_not_compared(
    whole: WholeEvaluation, run_cli: RunCli, tmp_path: Path
) -> None:
    other = copy_with_seed_1(whole.run, tmp_path / "other")
    (other / "evaluation/results.json").write_text("[]")
    done = run_cli("evaluate", "--compare", whole.run, other, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "results.json: damaged" in done.stderr
