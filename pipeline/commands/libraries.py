"""Environment variables that libraries read on import."""

from __future__ import annotations

import os
import warnings

SETTINGS = {
    "TQDM_DISABLE": "1",  # progress bars are our own
    "TOKENIZERS_PARALLELISM": "false",
    # idle threads of torch sleep, and leave the cores to others
    "OMP_WAIT_POLICY": "PASSIVE",
}
QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}
"""Keeps stdout for results, and stderr for this project's progress."""


def configure_libraries() -> None:
    """Set variables that the user has not set."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def quiet_libraries() -> None:
    """Silence libraries that are imported later."""
    warnings.filterwarnings("ignore")
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
