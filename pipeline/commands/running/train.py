"""`train`: train, plot the losses, and print a summary."""

from __future__ import annotations

from typing import Any

import click

from cache.storage import StorageLocation
from pipeline.commands.config_file import options_as_yaml
from pipeline.commands.counted import counted
from pipeline.commands.running.console import layer_weights
from pipeline.processes import is_main_process
from pipeline.report.figures import write_png
from pipeline.report.loss_plots import loss_curves
from pipeline.runs.folder import RunFolder
from pipeline.runs.settings import TrainSettings
from pipeline.training.run import train


def train_and_report(
    settings: TrainSettings,
    comparisons: list[str],
    random_teacher: StorageLocation | None,
    *,
    resume: bool,
    as_json: bool,
) -> dict[str, Any]:
    """Train a student and its comparison runs; print a summary unless `as_json`; return its record.

    Raises:
        CacheError, InputError, RunError: as `train`.
    """
    record = train(
        settings,
        comparisons=comparisons,
        random_teacher=random_teacher,
        resume=resume,
        options=options_as_yaml(),
    )
    if not is_main_process():
        raise SystemExit(0)  # the leading process reports
    folder = RunFolder(settings.run)
    write_png(folder.curve, loss_curves(folder.curves()))
    if not as_json:
        result = record.result
        click.echo(
            f"{settings.run}: {counted(result.steps, 'step')},"
            f" {counted(result.tokens, 'token')} in {result.seconds:.0f} s; best validation"
            f" loss {result.best_val_loss:.4f} at step {result.best_step}; {folder.curve}"
        )
        if result.layer_weights:
            click.echo(f"weights of the mixed layers: {layer_weights(result.layer_weights)}")
        for name, run in folder.finished_comparisons().items():
            click.echo(f"{name}: best validation loss {run.read_record().result.best_val_loss:.4f}")
        for reason, count in record.left_out.items():
            click.echo(f"left out: {count} {reason}")
        if record.leaks:
            click.echo(
                "LEAK: each prediction sees the answer, through bidirectional attention; do not"
                " compare this loss"
            )
    return record.to_json()
