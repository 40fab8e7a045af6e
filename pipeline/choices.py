"""Values of options whose code is slow to load: `--help` needs the names alone."""

from __future__ import annotations

ENGINES = ("auto", "local", "ray", "torchrun")
"""What runs the teacher."""
CROSS_ATTENTIONS = ("causal", "bidirectional")
GATES = ("channel", "scalar", "none")
REPORTERS = (
    "azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte", "kubeflow", "mlflow", "swanlab", "trackio",
    "wandb",
)  # fmt: skip
"""Services that `Trainer` can report to; TensorBoard always gets its files."""
