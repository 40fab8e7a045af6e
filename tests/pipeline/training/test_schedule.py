"""Learning rates over a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.runs.folder import RunFolder
from pipeline.training.run import train
from tests.conftest import RunCli
from tests.pipeline.short_runs import short_prompt_run


@pytest.mark.parametrize(
    ("schedule", "warmup", "shares"),
    [
        ("constant", 0, [1, 1, 1, 1]),
        ("constant", 0.5, [0, 0.5, 1, 1]),
        ("linear", 0.5, [0, 0.5, 1, 0.5]),
        ("linear", 0, [1, 0.75, 0.5, 0.25]),
        ("cosine", 0, [1, 0.8536, 0.5, 0.1464]),
    ],
)
def test_learning_rates_follow_the_schedule(
    schedule: str, warmup: float, shares: list[float], prompt_cache: Path, tmp_path: Path
) -> None:
    run = short_prompt_run(
        prompt_cache,
        tmp_path / "run",
        max_steps=4,
        log_every=1,
        bridge_lr=1e-3,
        schedule=schedule,
        warmup=warmup,
        patience=0,
        states_dropout=0.5,
    )
    train(run)
    rates = [
        line["learning_rate"]
        for line in RunFolder(run.run).read_metrics()
        if "learning_rate" in line
    ]
    assert rates == pytest.approx([1e-3 * share for share in shares], abs=2e-6)


def test_a_falling_schedule_has_no_early_stop(
    prompt_cache: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    options = ["--cache", prompt_cache, "--condition", "prompt", "--max-steps", 1]
    done = run_cli("train", *options, "--run", tmp_path / "run", "--schedule", "linear")
    assert done.returncode == 0, done.stderr
    assert RunFolder(tmp_path / "run").settings().patience == 0
    refused = run_cli(
        "train", *options, "--run", tmp_path / "other", "--schedule", "cosine", "--patience", 3
    )
    assert refused.returncode == 2
    assert "--schedule cosine" in refused.stderr and "--patience 0" in refused.stderr
