"""What happens inside a student: how far its gates are open, where its cross-attention looks, which teacher layer it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from pipeline.labels import IGNORE
from pipeline.model import LLMModulesForCausalLM
from pipeline.model.cross_attention import EnhancedCrossAttention

BINS = 20
"""Parts of equal length that a text, or a prompt, is cut into."""
_BACK = {-(1 << 30): "later", 0: "itself", 1: "1 back", 2: "2 to 8", 9: "9 to 64", 65: "further"}
"""How far back a token looks, by the least distance of each part; the published attention alone can see what is later."""


class _Mean:
    """A mean for each of some bins."""

    def __init__(self, bins: int) -> None:
        self._sums, self._counts = torch.zeros(bins, dtype=torch.float64), torch.zeros(bins, dtype=torch.float64)

    def add(self, bins_N: torch.Tensor, values_N: torch.Tensor) -> None:
        self._sums.index_add_(0, bins_N.cpu(), values_N.double().cpu())
        self._counts.index_add_(0, bins_N.cpu(), torch.ones(len(bins_N), dtype=torch.float64))

    def result(self) -> list[float | None]:
        return [float(s / n) if n else None for s, n in zip(self._sums, self._counts, strict=True)]


@torch.no_grad()
def look_inside(
    model: LLMModulesForCausalLM, batches: Iterable[dict[str, torch.Tensor]], decoder: torch.nn.Module, device: torch.device
) -> dict[str, Any]:
    """Gates and attention of each cross-attention layer, teacher-forced.

    Args:
        model: a student that reads states, in evaluation mode.
        batches: a sample.
        decoder: decodes their hidden states on the device.
        device: of the student.

    Returns:
        `gates`: for each layer the mean opening in each part of what the student reads (0 shut, 1 open; None: no gate there).
        `attention`: for each layer the shares of its attention from the positions that carry loss, adding up to 1: with
        `sequence` by how far back, with `prompt` by part of the prompt; `attention_parts` names them.
    """
    assert model.bridge is not None
    of_prompt = model.config.condition == "prompt"
    layers = list(model.bridge.layers)
    gates = [_Mean(BINS) for _ in layers]
    parts = [f"{part} of {BINS // 2}" for part in range(1, BINS // 2 + 1)] if of_prompt else list(_BACK.values())
    shares = torch.zeros(len(layers), len(parts), dtype=torch.float64)
    looked = 0
    for batch in batches:
        moved = decoder({name: value.to(device) for name, value in batch.items()})
        mask_BT = moved["attention_mask"].bool()
        carries_BT = torch.zeros_like(mask_BT)
        carries_BT[:, :-1] = moved["labels"][:, 1:] != IGNORE
        bins_N = _parts_of(moved["attention_mask"], BINS)[mask_BT]
        part_of_key = _parts_of(moved["states_mask"], BINS // 2) if of_prompt else None
        looked += int(carries_BT.sum())

        def gate(number: int, opening_BTG: torch.Tensor, bins_N: torch.Tensor = bins_N, mask_BT: torch.Tensor = mask_BT) -> None:
            gates[number].add(bins_N, opening_BTG.float().abs().mean(dim=-1)[mask_BT])

        def weights(
            number: int,
            weights_BHTK: torch.Tensor,
            carries_BT: torch.Tensor = carries_BT,
            part_of_key: torch.Tensor | None = part_of_key,
        ) -> None:
            mean_BTK = weights_BHTK.double().mean(dim=1)
            part_BTK = _distances(mean_BTK) if part_of_key is None else part_of_key[:, None].expand_as(mean_BTK)
            shares[number].index_add_(0, part_BTK[carries_BT].flatten().cpu(), mean_BTK[carries_BT].flatten().cpu())

        with _watched(layers, gate, weights):
            model.token_losses(**moved)
    return {
        "gates": None if model.config.gate == "none" else [mean.result() for mean in gates],
        "attention": (shares / max(looked, 1)).tolist(),
        "attention_parts": parts,
    }


@contextmanager
def _watched(
    layers: list[EnhancedCrossAttention],
    gate: Callable[[int, torch.Tensor], None],
    weights: Callable[[int, torch.Tensor], None],
) -> Iterator[None]:
    """Tells of each layer's gate and attention weights while the student runs."""

    def attention(number: int) -> Callable[..., None]:
        def hook(layer: EnhancedCrossAttention, given: tuple[Any, ...], named: dict[str, Any], _output: Any) -> None:
            names = ("states_BTS", "key_BHKC", "value_BHKC", "visible_B1TK")
            all_given = dict(zip(names, given, strict=False)) | named
            found = layer.weights(
                all_given["states_BTS"], all_given["key_BHKC"], all_given["visible_B1TK"], causal=all_given.get("causal", True)
            )
            weights(number, found)

        return hook

    with ExitStack() as stack:
        for number, layer in enumerate(layers):
            stack.callback(layer.register_forward_hook(attention(number), with_kwargs=True).remove)
            if layer.gate is not None:
                handle = layer.gate.register_forward_hook(lambda _gate, _given, opening, number=number: gate(number, opening))
                stack.callback(handle.remove)
        yield


def _parts_of(mask_BT: torch.Tensor, parts: int) -> torch.Tensor:
    """Which of so many parts of its text each token is in, `[B, T]`; padding counts as the last."""
    places_BT = torch.arange(mask_BT.shape[1], device=mask_BT.device).expand_as(mask_BT)
    return (places_BT * parts // mask_BT.sum(dim=1, keepdim=True).clamp(min=1)).clamp(max=parts - 1)


def _distances(mean_BTK: torch.Tensor) -> torch.Tensor:
    """Which part of `_BACK` each key is in, seen from each token."""
    tokens, keys = mean_BTK.shape[1:]
    back_TK = (torch.arange(tokens)[:, None] - torch.arange(keys)).to(mean_BTK.device)
    starts = torch.tensor(list(_BACK), device=mean_BTK.device)
    return (torch.searchsorted(starts, back_TK, right=True) - 1).expand_as(mean_BTK)
