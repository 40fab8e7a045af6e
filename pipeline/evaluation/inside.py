"""What happens inside a student: how far its gates are open, where its cross-attention looks, which
teacher layer it needs."""

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
_LOOKING = 256
"""Most tokens of a row whose attention is looked at: all weights of a long text would not fit in
memory."""
_BACK = {-(1 << 30): "later", 0: "itself", 1: "1 back", 2: "2 to 8", 9: "9 to 64", 65: "further"}
"""How far back a token looks, by the least distance of each part; the published attention alone can
see what is later."""


class _Mean:
    """A mean for each of some bins."""

    def __init__(self, bins: int) -> None:
        self._sums, self._counts = (
            torch.zeros(bins, dtype=torch.float64),
            torch.zeros(bins, dtype=torch.float64),
        )

    def add(self, bins_N: torch.Tensor, values_N: torch.Tensor) -> None:
        self._sums.index_add_(0, bins_N.cpu(), values_N.double().cpu())
        self._counts.index_add_(0, bins_N.cpu(), torch.ones(len(bins_N), dtype=torch.float64))

    def result(self) -> list[float | None]:
        return [float(s / n) if n else None for s, n in zip(self._sums, self._counts, strict=True)]


@torch.no_grad()
def look_inside(
    model: LLMModulesForCausalLM,
    batches: Iterable[dict[str, torch.Tensor]],
    decoder: torch.nn.Module,
    device: torch.device,
) -> dict[str, Any]:
    """Gates and attention of each cross-attention layer, teacher-forced.

    Args:
        model: a student that reads states, in evaluation mode.
        batches: a sample, of one row each.
        decoder: decodes their hidden states on the device.
        device: of the student.

    Returns:
        `gates`: for each layer the mean opening in each part of what the student reads (0 shut, 1
            open; None: no gate there).
        `attention`: for each layer the shares of its attention from the positions that carry loss,
        adding up to 1: with `sequence` by how far back, with `prompt` by part of the prompt;
        `attention_parts` names them.
    """
    assert model.bridge is not None
    of_prompt = model.config.condition == "prompt"
    layers = list(model.bridge.layers)
    gates = [_Mean(BINS) for _ in layers]
    parts = (
        [f"{part} of {BINS // 2}" for part in range(1, BINS // 2 + 1)]
        if of_prompt
        else list(_BACK.values())
    )
    shares = torch.zeros(len(layers), len(parts), dtype=torch.float64)
    looked = 0
    for batch in batches:
        moved = decoder({name: value.to(device) for name, value in batch.items()})
        mask_T = moved["attention_mask"][0].bool()
        bins_N = _parts_of(moved["attention_mask"], BINS)[0, mask_T]
        carries = (moved["labels"][0, 1:] != IGNORE).nonzero().flatten()
        at_N = carries[
            torch.linspace(0, len(carries) - 1, min(_LOOKING, len(carries)), device=device).long()
        ]
        part_of_key = _parts_of(moved["states_mask"], BINS // 2) if of_prompt else None
        looked += len(at_N)

        def gate(
            number: int,
            opening_1TG: torch.Tensor,
            bins_N: torch.Tensor = bins_N,
            mask_T: torch.Tensor = mask_T,
        ) -> None:
            gates[number].add(bins_N, opening_1TG[0].float().abs().mean(dim=-1)[mask_T])

        def weights(
            number: int,
            weights_1HNK: torch.Tensor,
            at_N: torch.Tensor = at_N,
            part_of_key: torch.Tensor | None = part_of_key,
        ) -> None:
            mean_NK = weights_1HNK[0].mean(dim=0)
            parts_NK = (
                _distances(at_N, mean_NK.shape[1])
                if part_of_key is None
                else part_of_key.expand_as(mean_NK)
            )
            shares[number].index_add_(0, parts_NK.flatten().cpu(), mean_NK.flatten().double().cpu())

        with _watched(layers, at_N, gate, weights):
            model.token_losses(**moved)
    return {
        "gates": None if model.config.gate == "none" else [mean.result() for mean in gates],
        "attention": (shares / max(looked, 1)).tolist(),
        "attention_parts": parts,
    }


@contextmanager
def _watched(
    layers: list[EnhancedCrossAttention],
    at_N: torch.Tensor,
    gate: Callable[[int, torch.Tensor], None],
    weights: Callable[[int, torch.Tensor], None],
) -> Iterator[None]:
    """Tells of each layer's gate and attention weights while the student runs."""

    def attention(number: int) -> Callable[..., None]:
        def hook(
            layer: EnhancedCrossAttention,
            given: tuple[Any, ...],
            named: dict[str, Any],
            _output: Any,
        ) -> None:
            names = ("states_BTS", "key_BHKC", "value_BHKC", "visible_B1TK")
            all_given = dict(zip(names, given, strict=False)) | named
            states, keys, visible = (
                all_given[name] for name in ("states_BTS", "key_BHKC", "visible_B1TK")
            )
            found = layer.weights(states, keys, visible, at_N, causal=all_given.get("causal", True))
            weights(number, found)

        return hook

    with ExitStack() as stack:
        for number, layer in enumerate(layers):
            stack.callback(layer.register_forward_hook(attention(number), with_kwargs=True).remove)
            if layer.gate is not None:
                handle = layer.gate.register_forward_hook(
                    lambda _gate, _given, opening, number=number: gate(number, opening)
                )
                stack.callback(handle.remove)
        yield


def _parts_of(mask_BT: torch.Tensor, parts: int) -> torch.Tensor:
    """Which of so many parts of its text each token is in, `[B, T]`; padding counts as the last."""
    places_BT = torch.arange(mask_BT.shape[1], device=mask_BT.device).expand_as(mask_BT)
    return (places_BT * parts // mask_BT.sum(dim=1, keepdim=True).clamp(min=1)).clamp(max=parts - 1)


def _distances(at_N: torch.Tensor, keys: int) -> torch.Tensor:
    """Which part of `_BACK` each key is in, seen from each of some places, `[N, K]`."""
    back_NK = at_N[:, None] - torch.arange(keys, device=at_N.device)
    return (
        torch.searchsorted(torch.tensor(list(_BACK), device=at_N.device), back_NK, right=True) - 1
    )
