"""The values that options choose from, where the code that they choose is slow to load: `--help`
needs the names alone."""

from __future__ import annotations

from typing import Literal

ExtractCondition = Literal["sequence", "prompt"]
EXTRACT_CONDITIONS: tuple[ExtractCondition, ...] = ("sequence", "prompt")
"""What the teacher reads: whole examples, or of each only what stands before its last answer."""
ENGINES = ("auto", "local", "ray", "torchrun")
"""Who runs the teacher."""
CONDITIONS = ("sequence", "prompt", "none", "text")
"""What a student reads, as in `LLMModulesConfig`."""
READS_STATES = ("sequence", "prompt")
"""Conditions in which the student reads a teacher's hidden states."""
OWN_TOKENS = ("prompt", "text")
"""Conditions in which the student's tokens are GPT-Neo's own, and not the teacher's."""
CROSS_ATTENTIONS = ("causal", "bidirectional")
GATES = ("channel", "scalar", "none")
REPORTERS = (
    "azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte", "kubeflow", "mlflow", "swanlab", "trackio",
    "wandb",
)  # fmt: skip
"""Services that `Trainer` can tell of a run, beside TensorBoard, which is always told."""
