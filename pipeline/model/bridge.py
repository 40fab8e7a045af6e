"""Between the teacher's hidden states and GPT-Neo (arXiv 2502.08213, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import Cache

from pipeline.model.configuration import LLMModulesConfig
from pipeline.model.cross_attention import EnhancedCrossAttention
from pipeline.model.visible import visible_tokens


class CrossLayers(nn.ModuleList):
    """Enhanced Cross-Attention layers; in a key-value cache they stand behind GPT-Neo's."""

    def __init__(self, config: LLMModulesConfig) -> None:
        first = int(config.body.num_layers)
        super().__init__(
            EnhancedCrossAttention(config, first + number) for number in range(config.cross_layers)
        )

    def __iter__(self) -> Iterator[EnhancedCrossAttention]:  # all are of one kind
        return super().__iter__()  # type: ignore[return-value]


class Bridge(nn.Module):
    """Projects teacher states to the student's width and lets Enhanced Cross-Attention layers read
    on in them.

    `h → norm → pre_proj → u`; an FFN of `u` starts the student's states; each cross-attention layer
    adds to them, with keys and values from `u`; a linear `proj(u)` is added at the end. Where
    several teacher layers are read, each has a `u` of
    its own: each cross-attention layer looks at one of them, the rest reads that of the last. The
        leading LayerNorm is not
    in the paper: it puts teacher layers, whose values differ a hundredfold in size, on one scale,
    and tames the few huge rows of middle layers."""

    def __init__(self, config: LLMModulesConfig) -> None:
        super().__init__()
        teacher_size, size = config.teacher_hidden_size, config.hidden_size
        self.causal = config.cross_attention == "causal"
        self.reads, self.layer_of_path = config.reads or [], config.layer_of_path
        count = len(config.teacher_layers)
        self.norm = nn.ModuleList(nn.LayerNorm(teacher_size) for _ in range(count))
        self.pre_proj = nn.ModuleList(nn.Linear(teacher_size, teacher_size) for _ in range(count))
        self.proj = nn.Linear(teacher_size, size)
        self.ffn = nn.Sequential(
            nn.Linear(teacher_size, config.intermediate_size),
            nn.LayerNorm(config.intermediate_size),
            nn.GELU(),
            nn.Linear(config.intermediate_size, size),
        )
        self.layers = CrossLayers(config)

    def forward(
        self,
        hidden_BTD: torch.Tensor,
        attention_mask_BK: torch.Tensor | None = None,
        past: Cache | None = None,
    ) -> torch.Tensor:
        """Input embeddings for GPT-Neo, `[B, T, d_student]`.

        Args:
            hidden_BTD: teacher hidden states, `[B, T, layers * d_teacher]`.
            attention_mask_BK: 1 for tokens, 0 for padding; with `past`, over all tokens so far.
            past: key-value cache of the tokens before these; extended in place.
        """
        tokens = hidden_BTD.shape[1]
        visible_B1TK = visible_tokens(
            attention_mask_BK, tokens, causal=self.causal, device=hidden_BTD.device
        )
        of_layers = hidden_BTD.chunk(len(self.norm), dim=-1)
        teacher = [
            pre_proj(norm(layer_BTD))
            for pre_proj, norm, layer_BTD in zip(self.pre_proj, self.norm, of_layers, strict=True)
        ]
        states_BTS: torch.Tensor = self.ffn(teacher[self.layer_of_path])
        for layer, read in zip(self.layers, self.reads, strict=True):
            keys, values = layer.keys_and_values(teacher[read])
            if past is not None:
                keys, values = past.update(keys, values, layer.layer_index)
            states_BTS = states_BTS + layer(states_BTS, keys, values, visible_B1TK)
        embeds_BTS: torch.Tensor = states_BTS + self.proj(teacher[self.layer_of_path])
        return embeds_BTS


class PromptBridge(nn.Module):
    """Enhanced Cross-Attention before some of GPT-Neo's blocks, to the teacher's states of the
    whole prompt.

    The states of each teacher layer pass a LayerNorm first, as in `Bridge`. Keys and values are
    computed once: with a key-value cache the prompt's states are needed for the first tokens alone.
    """

    def __init__(self, config: LLMModulesConfig) -> None:
        super().__init__()
        self.reads, self.blocks = config.reads or [], config.cross_blocks
        self.norm = nn.ModuleList(
            nn.LayerNorm(config.teacher_hidden_size) for _ in config.teacher_layers
        )
        self.layers = CrossLayers(config)

    def before_blocks(
        self,
        hidden_BKD: torch.Tensor | None,
        states_mask_BK: torch.Tensor | None,
        past: Cache | None = None,
    ) -> dict[int, Callable[[torch.Tensor], torch.Tensor]]:
        """What is to be done to GPT-Neo's states `[B, T, d_student]` before each of some blocks, by
        the block's number.

        Args:
            hidden_BKD: teacher hidden states of the prompts, `[B, K, layers * d_teacher]`; read
                only where `past` has none yet.
            states_mask_BK: 1 for states of a prompt, 0 for padding; None: none of them is padding.
            past: key-value cache; keeps the keys and values.

        Raises:
            ValueError: there are neither states nor keys and values of them.
        """
        visible_B11K = None if states_mask_BK is None else states_mask_BK.bool()[:, None, None, :]
        of_layers = [] if hidden_BKD is None else hidden_BKD.chunk(len(self.norm), dim=-1)
        read = [norm(layer_BKD) for norm, layer_BKD in zip(self.norm, of_layers, strict=False)]
        found: dict[int, Callable[[torch.Tensor], torch.Tensor]] = {}
        for block, layer, number in zip(self.blocks, self.layers, self.reads, strict=True):
            kept = _kept(past, layer.layer_index)
            if kept is None:
                if not read:
                    raise ValueError(
                        "this student reads a prompt's hidden_states before its first token; none"
                        " were given"
                    )
                kept = layer.keys_and_values(read[number])
                if past is not None:
                    kept = past.update(*kept, layer.layer_index)
            found[block] = partial(
                layer, key_BHKC=kept[0], value_BHKC=kept[1], visible_B1TK=visible_B11K, causal=False
            )
        return found


def _kept(past: Cache | None, layer_index: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The keys and values that a key-value cache has of a layer."""
    if past is None or layer_index >= len(past.layers) or not past.get_seq_length(layer_index):
        return None
    layer: Any = past.layers[layer_index]
    return layer.keys, layer.values
