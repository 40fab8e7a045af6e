"""Defaults that follow from other options; those of the options alone are the paper's."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from pipeline.runs.settings import TrainSettings

OWN_TOKENS: dict[str, Any] = {
    "batch_size": 32,
    "bridge_lr": 1e-3,
    "schedule": "linear",
    "warmup": 0.05,
}
"""With --condition prompt, and for the decoders that it is compared with (text)."""
NEW_DECODER: dict[str, Any] = {"student_lr": 1e-3, "weight_decay": 0.3}
"""Also, for a decoder of new weights."""
ADAPTERS: dict[str, Any] = {"student_lr": 2e-4}
"""Also, for the adapters of a pretrained one."""
NEW_BRIDGE: dict[str, Any] = {"cross_every": 1}
"""With --condition prompt, inside a decoder of new weights."""
PRETRAINED_BRIDGE: dict[str, Any] = {"cross_every": 4, "gate": "static"}
"""With --condition prompt, inside a pretrained one."""


def with_defaults(settings: TrainSettings, given: Collection[str]) -> TrainSettings:
    """Return settings in which the options that are not given follow from the others.

    The figures are those that measured best in docs/LOG.md, section 18.

    Args:
        settings: with the defaults of the options alone.
        given: names of the options that keep their values.
    """
    changes: dict[str, Any] = {}
    if settings.own_tokens:
        changes |= OWN_TOKENS
        changes |= NEW_DECODER if settings.has_new_decoder else {}
        changes |= {} if settings.lora is None else ADAPTERS
    if settings.conditioning.reads_prompt_states:
        changes |= NEW_BRIDGE if settings.has_new_decoder else PRETRAINED_BRIDGE
        changes |= {"layers": (), "prompt_text": not settings.has_new_decoder}  # (): auto
    if settings.patience and "patience" in given:  # it needs constant learning rates
        changes.pop("schedule", None)
    if settings.batch_tokens is not None:
        changes.pop("batch_size", None)
    settings = replace(settings, **{name: changes[name] for name in {*changes} - {*given}})
    if settings.schedule != "constant" and "patience" not in given:
        settings = replace(settings, patience=0)
    return settings
