"""Checkpoint state of weights, optimiser and random generators, as safetensors and JSON."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from xxhash import xxh3_128

from pipeline.errors import RunError

_WEIGHTS = "model.safetensors"
_FROZEN = "frozen_weights"
"""Metadata of a checkpoint's weights; release 0.1 wrote all weights, without it."""
_OPTIMIZER = "optimizer"


def _random_state(folder: Path, rank: int) -> Path:
    return folder / f"random_state-{rank}.safetensors"


def save_weights(folder: Path, model: nn.Module) -> None:
    """Write the weights that are trained; frozen ones are those of the student as built."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = {
        name: weights.detach().cpu().contiguous()
        for name, weights in model.named_parameters()
        if weights.requires_grad
    }
    save_file(trained, folder / _WEIGHTS, metadata={"format": "pt", _FROZEN: _frozen_hash(model)})


def load_weights(folder: Path, model: nn.Module) -> None:
    """Restore the weights that are trained.

    Raises:
        RunError: the frozen weights are not those that the checkpoint was trained with, or the
            trained ones have other names or shapes.
    """
    with safe_open(folder / _WEIGHTS, framework="pt") as file:
        frozen = (file.metadata() or {}).get(_FROZEN)
    if frozen is not None and frozen != _frozen_hash(model):
        raise RunError(
            f"{folder}: was trained with other frozen weights than the student has now; restore"
            " the files of --student, or train into a new --run"
        )
    stored, own = load_file(folder / _WEIGHTS), model.state_dict()
    trained = {name for name, weights in model.named_parameters() if weights.requires_grad}
    others = (trained - stored.keys()) | {
        name
        for name, weights in stored.items()
        if name not in own or own[name].shape != weights.shape
    }
    if others:
        raise RunError(
            f"{folder}: holds the weights of a student that an earlier release built in another way"
            f" ({min(others)} differs); finish the run with that release, or train into a new --run"
        )
    model.load_state_dict(stored, strict=False)


def _frozen_hash(model: nn.Module) -> str:
    """Return a hash of the weights that are not trained."""
    frozen = xxh3_128()
    for name, weights in model.named_parameters():
        if not weights.requires_grad:
            frozen.update(name.encode())
            frozen.update(weights.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return frozen.hexdigest()


def save_optimizer(folder: Path, optimizer: Any, scheduler: Any) -> None:
    """Write the states of an optimiser and its learning-rate scheduler."""
    state = optimizer.state_dict()
    tensors, numbers = {}, {}
    for parameter, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{parameter}.{name}"] = value.detach().cpu().contiguous()
            else:
                numbers[f"{parameter}.{name}"] = value
    rest = {
        "numbers": numbers,
        "param_groups": state["param_groups"],
        "scheduler": scheduler.state_dict(),
    }
    save_file(tensors, folder / f"{_OPTIMIZER}.safetensors")
    (folder / f"{_OPTIMIZER}.json").write_text(json.dumps(rest))


def load_optimizer(folder: Path, optimizer: Any, scheduler: Any) -> None:
    """Restore the states of an optimiser and its learning-rate scheduler."""
    rest = json.loads((folder / f"{_OPTIMIZER}.json").read_text())
    state: dict[int, dict[str, Any]] = {}
    for key, value in [
        *load_file(folder / f"{_OPTIMIZER}.safetensors").items(),
        *rest["numbers"].items(),
    ]:
        parameter, _, name = key.partition(".")
        state.setdefault(int(parameter), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": rest["param_groups"]})
    scheduler.load_state_dict(rest["scheduler"])


def save_random_state(folder: Path, rank: int) -> None:
    """Write the states of this process's random generators: Python's, NumPy's and torch's."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    tensors = {
        "torch": torch.random.get_rng_state(),
        "numpy": torch.from_numpy(np.asarray(keys, np.int64)),
    }
    for index in range(torch.cuda.device_count()):
        tensors[f"cuda.{index}"] = torch.cuda.get_rng_state(index)
    rest = {
        "python": [version, list(words), gauss],
        "numpy": [kind, int(position), int(has_gauss), float(cached)],
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = _random_state(folder, rank)
    save_file(tensors, file)
    file.with_suffix(".json").write_text(json.dumps(rest))


def load_random_state(folder: Path, rank: int) -> None:
    """Restore the random generators of the process with this rank.

    A rank without a saved state gets that of rank 0.
    """
    file = _random_state(folder, rank)
    file = file if file.is_file() else _random_state(folder, 0)
    tensors, rest = load_file(file), json.loads(file.with_suffix(".json").read_text())
    version, words, gauss = rest["python"]
    random.setstate((version, tuple(words), gauss))
    kind, position, has_gauss, cached = rest["numpy"]
    np.random.set_state(
        (kind, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached)
    )
    torch.random.set_rng_state(tensors["torch"])
    for index in range(torch.cuda.device_count()):
        if f"cuda.{index}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda.{index}"], index)
