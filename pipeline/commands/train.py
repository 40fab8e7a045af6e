"""`train`: a student from a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pipeline.commands.cache_places import cache_places
from pipeline.commands.shell import command
from pipeline.errors import InputError
from pipeline.model import CROSS_ATTENTIONS, SIZES
from pipeline.processes import leads
from pipeline.report.plots import loss_curves, write_png
from pipeline.training.arguments import REPORTERS
from pipeline.training.run import train as run_train
from pipeline.training.run_folder import RunFolder
from pipeline.training.settings import CONTROLS, TrainSettings

_DEFAULTS = TrainSettings(Path(), Path())


@click.command()
@click.option("--cache", required=True, metavar="PLACE", help="A whole cache, made by extract: a folder, or s3://bucket/prefix.")
@click.option("--run", type=click.Path(path_type=Path), required=True, help="Folder of this run.")
@click.option(
    "--student", default=_DEFAULTS.student, show_default=True, help=f"{', '.join(SIZES)}, or a GPT-Neo: hub id or folder."
)
@click.option("--layer", type=int, default=_DEFAULTS.layer, show_default=True, help="Cached teacher layer to read.")
@click.option(
    "--condition", type=click.Choice(["sequence", "none"]), default=_DEFAULTS.condition, show_default=True,
    help="Read the teacher's states of every token, or tokens without a teacher (the control).",
)  # fmt: skip
@click.option(
    "--cross-attention", type=click.Choice(CROSS_ATTENTIONS), default=_DEFAULTS.cross_attention, show_default=True,
    help="bidirectional is the published code's variant; it leaks the answer and is labelled so.",
)  # fmt: skip
@click.option(
    "--vocab", type=click.Choice(["teacher", "dataset"]), default=_DEFAULTS.vocab, show_default=True,
    help="Tokens that the LM head spans: the teacher's, or those that occur in the data set, often ten times fewer; the student "
    "can write no others.",
)  # fmt: skip
@click.option("--controls", is_flag=True, help=f"Then train the controls too, at equal steps and tokens: {', '.join(CONTROLS)}.")
@click.option("--epochs", type=click.IntRange(min=1), default=_DEFAULTS.epochs, show_default=True)
@click.option("--max-steps", type=click.IntRange(min=1), help="Stop after so many optimiser steps.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=_DEFAULTS.batch_size, show_default=True, help="Examples a batch."
)
@click.option(
    "--batch-tokens", type=click.IntRange(min=1),
    help="Tokens a batch, padding included, of examples of like length; in place of --batch-size. A longer example stays alone.",
)  # fmt: skip
@click.option(
    "--accumulate", type=click.IntRange(min=1),
    help="Batches a step, of all processes together.  [default: one of each process]",
)  # fmt: skip
@click.option(
    "--bridge-lr",
    type=click.FloatRange(min=0),
    default=_DEFAULTS.bridge_lr,
    show_default=True,
    help="Learning rate of bridge and LM head.",
)
@click.option(
    "--gpt-neo-lr",
    type=click.FloatRange(min=0),
    default=_DEFAULTS.gpt_neo_lr,
    show_default=True,
    help="Learning rate of GPT-Neo.",
)
@click.option("--weight-decay", type=click.FloatRange(min=0), default=_DEFAULTS.weight_decay, show_default=True)
@click.option("--clip", type=click.FloatRange(min=0), default=_DEFAULTS.clip, show_default=True, help="Largest gradient norm.")
@click.option(
    "--patience", type=click.IntRange(min=0), default=_DEFAULTS.patience, show_default=True,
    help="Evaluations without gain before stopping (0: never stop).",
)  # fmt: skip
@click.option(
    "--min-delta", type=click.FloatRange(min=0), default=_DEFAULTS.min_delta, show_default=True, help="Smallest gain that counts."
)
@click.option(
    "--validation", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=_DEFAULTS.validation,
    show_default=True, help="Share held out.",
)  # fmt: skip
@click.option(
    "--gradient-checkpointing", is_flag=True, help="Less memory for more computing: GPT-Neo's blocks run again backwards."
)
@click.option(
    "--report-to", type=click.Choice(REPORTERS), multiple=True,
    help="Tell a service of the run, too; may be repeated. TensorBoard's files are always written.",
)  # fmt: skip
@click.option("--eval-every", type=click.IntRange(min=1), help="Steps between evaluations and checkpoints.  [default: an epoch]")
@click.option("--log-every", type=click.IntRange(min=1), default=_DEFAULTS.log_every, show_default=True, help="Steps a log line.")
@click.option("--seed", type=int, default=_DEFAULTS.seed, show_default=True)
@click.option(
    "--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True, help="auto: bf16 AMP on a GPU."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda")
@click.option(
    "--loader-workers", type=click.IntRange(min=0),
    help="Processes that read the cache ahead, of each training process.  [default: 2 for a GPU, else 0]",
)  # fmt: skip
@click.option(
    "--resume", is_flag=True, help="Go on with a run that was stopped, from its last checkpoint; begin it where there is none."
)
@command
@cache_places("cache")
def train(*, as_json: bool, controls: bool, resume: bool, **options: Any) -> dict[str, Any]:
    """Train a student (Enhanced Cross-Attention and GPT-Neo) from a cache. The teacher is never in memory.

    The defaults are the paper's settings. With --controls, evaluate can tell what of the result comes from the teacher;
    that needs layer 0 in the cache (extract --layers -1,0).

    \b
    Examples:
      llm-modules train --cache my-cache --run my-run --controls
      llm-modules train --cache my-cache --run my-run --student EleutherAI/gpt-neo-125m
      llm-modules train --cache my-cache --run my-run --batch-tokens 4096
      llm-modules train --cache my-cache --run my-run --resume
      torchrun --nproc-per-node 2 cli.py train --cache my-cache --run my-run
    """
    _refuse_two_batch_sizes()
    record = run_train(TrainSettings(**options), controls=CONTROLS if controls else (), resume=resume)
    if not leads():
        raise SystemExit(0)  # what there is to say, the leading process says
    folder = RunFolder(options["run"])
    runs = {"student": folder, **folder.controls()}
    write_png(folder.curve, loss_curves({name: run.read_metrics() for name, run in runs.items()}))
    if not as_json:
        result = record["result"]
        click.echo(
            f"{options['run']}: {result['steps']} steps, {result['tokens']:,} tokens in {result['seconds']:.0f} s; "
            f"best validation loss {result['best_val_loss']:.4f} at step {result['best_step']}; {folder.curve.name}"
        )
        if record["leaks"]:
            click.echo("LEAK: each prediction sees the answer, through bidirectional attention; do not compare this loss")
    return record


def _refuse_two_batch_sizes() -> None:
    given = click.get_current_context()
    if all(given.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in ("batch_size", "batch_tokens")):
        raise InputError("--batch-size and --batch-tokens: name one of them")
