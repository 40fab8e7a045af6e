"""Benchmarks run to their end at the smallest size; nothing is timed here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.choices import JOINS

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_generate_measures_each_way_and_join(tmp_path: Path) -> None:
    out = tmp_path / "generate.json"
    options = ["--new-tokens", "4", "--rounds", "1", "--published-every", "4", "--json", out]
    subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "generate.py", *options],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    ways = {figures["way"] for figures in json.loads(out.read_text())["ways"]}
    assert ways >= {"decoder alone", "prompt", "sequence", "published"}
    assert ways >= {f"text and {join}" for join in JOINS}
