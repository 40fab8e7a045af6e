"""What libraries read from the environment when they are imported."""

from __future__ import annotations

import os
import warnings

SETTINGS = {
    "TQDM_DISABLE": "1",  # the bars here are our own
    "TOKENIZERS_PARALLELISM": "false",
    # torch's threads sleep while they wait: others use the cores, too
    "OMP_WAIT_POLICY": "PASSIVE",
}
QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}
"""Leaves stdout to results, and stderr to this project's own progress."""


def settle_libraries() -> None:
    """Settings for every command, where the user has none of his own."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def quiet_libraries() -> None:
    """Silence libraries that are imported from now on."""
    warnings.filterwarnings("ignore")
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
