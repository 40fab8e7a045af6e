"""Option values of slow libraries, as names only, so that `--help` stays fast."""

from __future__ import annotations

from typing import Literal, get_args

EngineName = Literal["auto", "local", "ray", "torchrun"]
"""Engines that run the teacher."""
LossOn = Literal["assistant", "all"]
"""Tokens that the student learns to predict."""
CrossAttention = Literal["causal", "bidirectional"]
CROSS_ATTENTIONS: tuple[CrossAttention, ...] = get_args(CrossAttention)
Gate = Literal["channel", "scalar", "static", "none"]
GATES: tuple[Gate, ...] = get_args(Gate)
Join = Literal["cross", "add"]
"""How a prompt's hidden states reach a student of `--condition prompt`."""
JOINS: tuple[Join, ...] = get_args(Join)
Part = Literal["student", "bridge", "head"]
"""Parts that may be frozen: the student's decoder, its bridge, its LM head."""
PARTS: tuple[Part, ...] = get_args(Part)
Precision = Literal["auto", "fp32", "bf16"]
"""Compute types."""
Reporter = Literal[
    "azure_ml",
    "clearml",
    "codecarbon",
    "comet_ml",
    "dagshub",
    "dvclive",
    "flyte",
    "kubeflow",
    "mlflow",
    "swanlab",
    "trackio",
    "wandb",
]
"""Services that `Trainer` can report to, besides TensorBoard, which is always on."""
REPORTERS: tuple[Reporter, ...] = get_args(Reporter)
