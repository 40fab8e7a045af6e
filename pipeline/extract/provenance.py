"""How a cache was made: recorded in it, never compared."""

from __future__ import annotations

import platform
import re
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from pipeline.data.sources import ConversationSet
from pipeline.data.template_date import template_date_of
from pipeline.data.tokenized_dataset import TokenizedDataset
from pipeline.device import choose_device
from pipeline.extract.batching import most_batch_tokens
from pipeline.extract.settings import ExtractSettings
from pipeline.teacher.source import TeacherSource

_RECORDED_VERSIONS = (
    "h5py",
    "ml_dtypes",
    "numpy",
    "pcodec",
    "safetensors",
    "torch",
    "transformers",
    "zarr",
)


def shard_provenance(device_name: str) -> dict[str, Any]:
    """Return what the last bits of a shard's values depend on, except the batch size."""
    device = choose_device(device_name)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": str(device),
        "device_name": name,
        "threads": torch.get_num_threads(),
        "versions": recorded_versions(),
    }


def cache_provenance(
    settings: ExtractSettings,
    source: TeacherSource,
    conversations: ConversationSet,
    dataset: TokenizedDataset,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, object]:
    """Return the origin of a cache, and what it lacks of the data set."""
    return {
        "teacher": _located(source.name),
        "dataset": _located(settings.dataset),
        "dataset_config": settings.dataset_config,
        "split": settings.split,
        "form": conversations.form,
        "template_date": template_date_of(settings.template, tokenizer),
        "system_prompt": _usual_system_prompt(conversations),
        "limit": settings.limit,
        "skip_bad_rows": settings.skip_bad_rows,
        "left_out": dataset.left_out,
        "unread": conversations.unread,
        "shards": shard_provenance(settings.device)
        | {"batch_tokens": most_batch_tokens(settings.batch_tokens, settings.device)},
        "versions": recorded_versions(),
        "options": settings.options,
    }


def recorded_versions() -> dict[str, str]:
    """Return the versions of the libraries that the values depend on."""
    return {name: version(name) for name in _RECORDED_VERSIONS} | {
        "python": platform.python_version()
    }


def _usual_system_prompt(conversations: ConversationSet) -> str | None:
    """Return the most common system prompt; the default of `generate` and `chat`."""
    beginnings = (
        next((turn for turn in row.turns if turn.role != "tools"), None)
        for row in conversations.conversations
    )
    prompts = [turn.text for turn in beginnings if turn is not None and turn.role == "system"]
    return Counter(prompts).most_common(1)[0][0] if prompts else None


def _located(name: str) -> str:
    """Return a path as an absolute path, anything else unchanged."""
    match = re.fullmatch(r"(random:\d+:)?(.+)", name, re.DOTALL)
    assert match is not None
    prefix, path = match.groups("")
    return prefix + (str(Path(path).resolve()) if Path(path).exists() else path)
