"""The options that say how hidden states are to be stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import cloup

from pipeline.codec_fit.requirements import ANY_LAYER, LAST_LAYER, PRESET_COSTS, PRESETS

_PRESETS = ", ".join(
    f"{name} ({measure}={value:g}: costs a student up to {PRESET_COSTS[name]:g} % of its loss)"
    for name, (measure, value) in PRESETS.items()
)


def codec_options(default: str | None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--codec`, `--fidelity`, `--bits`, `--calibration-tokens`, `--calibration-seed`. `default` is
    the codec left out."""
    decorator: Callable[[Callable[..., Any]], Callable[..., Any]] = cloup.option_group(
        "Codec of the hidden states",
        click.option(
            "--codec", multiple=True, default=(default,) if default else (), show_default=bool(default),
            metavar="[LAYER:]bf16|int8|klt",
            help="How states are stored: bf16 exactly, int8 in half the room, klt in a sixth of it or less. Repeat it for single "
            "layers: --codec klt --codec 0:bf16.",
        ),
        click.option(
            "--fidelity", multiple=True, metavar="[LAYER:]kl=X|rel=X|PRESET",
            help="klt: how close the states stay: KL divergence of the teacher's predictions (nats a token, last layer only), "
            f"relative error, or one of {_PRESETS}.  [default: {LAST_LAYER[0]}={LAST_LAYER[1]:g} for the last layer where the "
            f"teacher is loaded, {ANY_LAYER[0]}={ANY_LAYER[1]:g} else]",
        ),
        click.option("--bits", multiple=True, metavar="[LAYER:]X", help="klt: bits a value, instead of --fidelity."),
        click.option(
            "--calibration-tokens", type=click.IntRange(min=1), default=32768, show_default=True,
            help="int8, klt: tokens of the data set that the codec is fitted to.",
        ),
        click.option("--calibration-seed", default=0, show_default=True, help="int8, klt: chooses these tokens."),
    )  # fmt: skip
    return decorator
