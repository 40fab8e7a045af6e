"""The options of one training run, for every command that trains."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import cloup
from click.core import ParameterSource

from pipeline.choices import CROSS_ATTENTIONS, GATES, REPORTERS
from pipeline.commands.list_parameters import LayerList
from pipeline.conditions.registry import CONDITIONS
from pipeline.errors import InputError
from pipeline.runs.settings import PARTS, TrainSettings
from pipeline.shapes import SIZES

_DEFAULTS = TrainSettings(cache=Path(), run=Path())
cache_option = click.option(
    "--cache",
    required=True,
    metavar="PLACE",
    help="A whole cache of extract: a folder, or s3://bucket/prefix.",
)
"""The cache to train from."""

_GROUPS = (
    cloup.option_group(
        "The student",
        click.option(
            "--student",
            default=_DEFAULTS.student,
            show_default=True,
            help=(
                f"{', '.join(SIZES)}, or a GPT-Neo: hub id, folder, or RUN/model of --condition"
                " text or none."
            ),
        ),
        click.option(
            "--condition",
            type=click.Choice(tuple(CONDITIONS)),
            default=_DEFAULTS.condition,
            show_default=True,
            help=(
                "What the student reads: the teacher's states of every token; those of the prompt,"
                " once, while it writes in its own tokens (from a cache of prompts or of whole"
                " examples); or no teacher, as a control: the teacher's tokens (none), prompt and"
                " answer in its own tokens (text)."
            ),
        ),
        click.option(
            "--new-weights",
            is_flag=True,
            help="Take the student's shape and tokens, and none of its weights.",
        ),
        click.option(
            "--freeze",
            type=click.Choice(PARTS),
            multiple=True,
            help="Leave this part's weights as they are; may be repeated.",
        ),
        click.option(
            "--vocab",
            type=click.Choice(["whole", "dataset"]),
            default=_DEFAULTS.vocab,
            show_default=True,
            help=(
                "Tokens that the LM head spans: all, or those that occur in the data set, often ten"
                " times fewer; the student can write no others."
            ),
        ),
        click.option(
            "--head-init",
            type=click.Choice(["random", "teacher"]),
            default=_DEFAULTS.head_init,
            show_default=True,
            help=(
                "Begin with the teacher's LM head, reduced to the student's width (extract"
                " --keep-head)."
            ),
        ),
        click.option(
            "--student-tokenizer",
            help=(
                "Hub id or folder of the student's own tokens, with --condition prompt or text. "
                " [default: the student; for a new one the teacher]"
            ),
        ),
    ),
    cloup.option_group(
        "Enhanced Cross-Attention",
        click.option(
            "--layers",
            type=LayerList(),
            default="-1",
            show_default=True,
            help=(
                "Cached teacher layers to read: one, or one for each cross-attention layer (the"
                " rest of the bridge reads the last)."
            ),
        ),
        click.option(
            "--cross-layers",
            type=click.IntRange(min=0),
            default=_DEFAULTS.cross_layers,
            show_default=True,
            help="Enhanced Cross-Attention layers, with --condition sequence.",
        ),
        click.option(
            "--cross-every",
            type=click.IntRange(min=1),
            default=_DEFAULTS.cross_every,
            show_default=True,
            help=(
                "With --condition prompt: one stands before the last of every so many of GPT-Neo's"
                " blocks."
            ),
        ),
        click.option(
            "--cross-heads",
            type=click.IntRange(min=1),
            default=_DEFAULTS.cross_heads,
            show_default=True,
            help="Heads of each of them.",
        ),
        click.option(
            "--adapter-size",
            type=click.IntRange(min=1),
            help="Inner width of their adapters.  [default: a third of the student's width]",
        ),
        click.option(
            "--gate",
            type=click.Choice(GATES),
            default=_DEFAULTS.gate,
            show_default=True,
            help=(
                "What mixes their old and new states: a gate for each channel, one a token, or"
                " none."
            ),
        ),
        click.option(
            "--cross-attention",
            type=click.Choice(CROSS_ATTENTIONS),
            default=_DEFAULTS.cross_attention,
            show_default=True,
            help=(
                "bidirectional is the published code's variant; it leaks the answer and is"
                " labelled so."
            ),
        ),
    ),
    cloup.option_group(
        "What it learns from",
        click.option(
            "--batch-size",
            type=click.IntRange(min=1),
            default=_DEFAULTS.batch_size,
            show_default=True,
            help="Examples a batch.",
        ),
        click.option(
            "--batch-tokens",
            type=click.IntRange(min=1),
            help=(
                "Tokens a batch, padding included, of examples of like length, with --condition"
                " prompt the prompts' too; in place of --batch-size. A longer example stays alone."
            ),
        ),
        click.option(
            "--accumulate",
            type=click.IntRange(min=1),
            help="Batches a step, of all processes together.  [default: one of each process]",
        ),
        click.option(
            "--validation",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            default=_DEFAULTS.validation,
            show_default=True,
            help="Share held out.",
        ),
        click.option(
            "--max-answer-tokens",
            type=click.IntRange(min=2),
            help="Leave answers of more of the student's own tokens out, and count them.",
        ),
        click.option(
            "--distill",
            type=click.FloatRange(0, 1),
            default=_DEFAULTS.distill,
            show_default=True,
            help=(
                "Share of the loss that is learned from the teacher's predictions in place of the"
                " data set's tokens (from layer -1, after extract --keep-head; no teacher is"
                " needed)."
            ),
        ),
        click.option(
            "--seed",
            type=int,
            default=_DEFAULTS.seed,
            show_default=True,
            help="Of new weights, and of the order of rows.",
        ),
    ),
    cloup.option_group(
        "Optimiser, and when to stop",
        click.option(
            "--epochs",
            type=click.IntRange(min=1),
            default=_DEFAULTS.epochs,
            show_default=True,
            help="Passes over the rows, at most.",
        ),
        click.option(
            "--max-steps", type=click.IntRange(min=1), help="Stop after so many optimiser steps."
        ),
        click.option(
            "--bridge-lr",
            type=click.FloatRange(min=0),
            default=_DEFAULTS.bridge_lr,
            show_default=True,
            help="Learning rate of bridge and LM head.",
        ),
        click.option(
            "--gpt-neo-lr",
            type=click.FloatRange(min=0),
            default=_DEFAULTS.gpt_neo_lr,
            show_default=True,
            help="Learning rate of GPT-Neo.",
        ),
        click.option(
            "--weight-decay",
            type=click.FloatRange(min=0),
            default=_DEFAULTS.weight_decay,
            show_default=True,
            help="AdamW's.",
        ),
        click.option(
            "--clip",
            type=click.FloatRange(min=0),
            default=_DEFAULTS.clip,
            show_default=True,
            help="Largest gradient norm.",
        ),
        click.option(
            "--eval-every",
            type=click.IntRange(min=1),
            help="Steps between evaluations and checkpoints.  [default: an epoch]",
        ),
        click.option(
            "--patience",
            type=click.IntRange(min=0),
            default=_DEFAULTS.patience,
            show_default=True,
            help="Evaluations without gain before stopping (0: never stop).",
        ),
        click.option(
            "--min-delta",
            type=click.FloatRange(min=0),
            default=_DEFAULTS.min_delta,
            show_default=True,
            help="Smallest gain that counts.",
        ),
    ),
    cloup.option_group(
        "Machine and logs",
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda"),
        click.option(
            "--precision",
            type=click.Choice(["auto", "fp32", "bf16"]),
            default="auto",
            show_default=True,
            help="auto: bf16 AMP on a GPU; on a CPU with AVX-512 BF16 ask for bf16: twice as fast.",
        ),
        click.option(
            "--gradient-checkpointing",
            is_flag=True,
            help="Less memory for more computing: GPT-Neo's blocks run again backwards.",
        ),
        click.option(
            "--loader-workers",
            type=click.IntRange(min=0),
            help=(
                "Processes that read the cache ahead, of each training process.  [default: 2 for a"
                " GPU, else 0]"
            ),
        ),
        click.option(
            "--log-every",
            type=click.IntRange(min=1),
            default=_DEFAULTS.log_every,
            show_default=True,
            help="Steps a log line.",
        ),
        click.option(
            "--report-to",
            type=click.Choice(REPORTERS),
            multiple=True,
            help=(
                "Tell a service of the run, too; may be repeated. TensorBoard's files are always"
                " written."
            ),
        ),
    ),
)


def train_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all options of a run but where it is."""
    for group in reversed(_GROUPS):
        function = group(function)
    return function


def train_settings(options: Mapping[str, Any], varied: Collection[str] = ()) -> TrainSettings:
    """The settings that those options come to; `varied` names those that are still to get their
    values.

    Raises:
        InputError: two of them contradict each other.
    """
    settings = TrainSettings(**options)
    weaker, stronger = sorted(
        ("batch_size", "batch_tokens"), key=lambda name: _weight(name, varied)
    )
    settings = _giving_way(
        settings, weaker, stronger, varied, "--batch-size and --batch-tokens: name one of them"
    )
    if "condition" in varied:
        return settings
    used = settings.conditioning.sizes_bridge_by
    unused = "cross_every" if used == "cross_layers" else "cross_layers"
    problem = (
        f"--{unused.replace('_', '-')}: with --condition {settings.condition} it is"
        f" --{used.replace('_', '-')}"
    )
    return _giving_way(settings, unused, "condition", varied, problem)


def _giving_way(
    settings: TrainSettings, name: str, other: str, varied: Collection[str], problem: str
) -> TrainSettings:
    """Settings without an option that another excludes, where the other was asked for more
    strongly.

    Raises:
        InputError: it was not, and the option was asked for at all: tells of the problem.
    """
    if _weight(name, varied) >= max(1, _weight(other, varied)):
        raise InputError(problem)
    return (
        replace(settings, **{name: getattr(_DEFAULTS, name)}) if _weight(name, varied) else settings
    )


def _weight(name: str, varied: Collection[str]) -> int:
    """How strongly an option was asked for: on the command line, in a file of options, or not at
    all."""
    if name in varied:
        return 2
    source = click.get_current_context().get_parameter_source(name)
    return (
        {ParameterSource.COMMANDLINE: 2, ParameterSource.DEFAULT_MAP: 1}.get(source, 0)
        if source
        else 0
    )
