"""Enhanced Cross-Attention to the teacher's states (arXiv 2502.08213, section 3.2)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from pipeline.model.configuration import LLMModulesConfig


class Adapter(nn.Module):
    """A bottleneck with a residual connection: `LayerNorm(x + up(GELU(down(x))))`."""

    def __init__(self, size: int, inner_size: int) -> None:
        super().__init__()
        self.down = nn.Linear(size, inner_size)
        self.up = nn.Linear(inner_size, size)
        self.act = nn.GELU()
        self.norm = nn.LayerNorm(size)

    def forward(self, hidden_BTS: torch.Tensor) -> torch.Tensor:
        """Return `[B, T, d_student]`, as the input."""
        adapted: torch.Tensor = self.norm(hidden_BTS + self.up(self.act(self.down(hidden_BTS))))
        return adapted


class Gate(nn.Linear):
    """The share of the new states in the mix of old and new."""

    def __init__(self, size: int, gates: int, *, closed: bool) -> None:
        """Build `gates` gates over `2 * size` channels.

        One that starts `closed` is a `tanh` whose argument is initially zero.
        """
        super().__init__(2 * size, gates)
        self.starts_closed = closed

    def forward(self, states_BTS: torch.Tensor, attended_BTS: torch.Tensor) -> torch.Tensor:  # type: ignore[override]  # of both
        """Return `[B, T, gates]` for old and new states."""
        opening_BTG = super().forward(torch.cat([states_BTS, attended_BTS], dim=-1))
        return _share(opening_BTG, closed=self.starts_closed)


class StaticGate(nn.Module):
    """One gate per channel, the same for all tokens; Flamingo's is one per layer (2204.14198)."""

    def __init__(self, size: int, *, closed: bool) -> None:
        """Build `size` gates that start `closed`, or half open."""
        super().__init__()
        self.starts_closed = closed
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, *_: torch.Tensor) -> torch.Tensor:
        """Return `[d_student]`, whatever the states."""
        return _share(self.bias, closed=self.starts_closed)


class EnhancedCrossAttention(nn.Module):
    """Attention from the student's states to the teacher's, an adapter, and a gate.

    The result is `gate * attended + (1 - gate) * states`, without a gate `attended + states`. The
    gate is `sigmoid(Linear([states; attended]))`, one per channel or one per token. A static gate
    is `sigmoid(b)`, one per channel. A layer inside a decoder (`condition="prompt"`) starts closed:
    its gate is a `tanh` whose argument is initially zero, so that the states pass unchanged, while
    its weights learn from the first step.
    """

    def __init__(
        self, config: LLMModulesConfig, layer_index: int, *, starts_closed: bool = False
    ) -> None:
        """Build the layer; `layer_index` is its index in the key-value cache."""
        super().__init__()
        size, teacher_size = config.hidden_size, config.teacher_hidden_size
        self.heads, self.layer_index = config.cross_heads, layer_index
        self.states_norm = nn.LayerNorm(size)
        self.teacher_norm = nn.LayerNorm(teacher_size)
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(teacher_size, size)
        self.value = nn.Linear(teacher_size, size)
        self.output = nn.Linear(size, size)
        self.adapter = Adapter(size, config.adapter_size)
        self.gate = _gate(config.gate, size, closed=starts_closed)

    def keys_and_values(self, teacher_BKD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values `[B, heads, K, d_head]` of the teacher's hidden states."""
        teacher_BKD = self.teacher_norm(teacher_BKD)
        return self._heads(self.key(teacher_BKD)), self._heads(self.value(teacher_BKD))

    def forward(
        self,
        states_BTS: torch.Tensor,
        key_BHKC: torch.Tensor,
        value_BHKC: torch.Tensor,
        visible_B1TK: torch.Tensor | None,
        *,
        causal: bool = True,
    ) -> torch.Tensor:
        """Return new student states `[B, T, d_student]`.

        Args:
            states_BTS: the student's states.
            key_BHKC, value_BHKC: of the teacher's hidden states.
            visible_B1TK: True where token t may see teacher state k; None: see `causal`.
            causal: without a mask, tokens see the states up to their own; otherwise all.
        """
        attended_BHTC = scaled_dot_product_attention(
            self._heads(self.query(self.states_norm(states_BTS))),
            key_BHKC,
            value_BHKC,
            attn_mask=visible_B1TK,
            is_causal=causal and visible_B1TK is None and states_BTS.shape[1] > 1,
        )
        attended_BTS = self.adapter(self.output(attended_BHTC.transpose(1, 2).flatten(-2)))
        if self.gate is None:
            added_BTS: torch.Tensor = states_BTS + attended_BTS
            return added_BTS
        share = self.gate(states_BTS, attended_BTS)
        mixed_BTS: torch.Tensor = share * attended_BTS + (1 - share) * states_BTS
        return mixed_BTS

    def _heads(self, hidden_BTS: torch.Tensor) -> torch.Tensor:
        split_BHTC: torch.Tensor = hidden_BTS.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return split_BHTC


def _share(opening: torch.Tensor, *, closed: bool) -> torch.Tensor:
    """Return the share of new states: at an opening of 0 none if `closed`, else half."""
    return torch.tanh(opening) if closed else torch.sigmoid(opening)


def _gate(kind: str, size: int, *, closed: bool) -> Gate | StaticGate | None:
    """Return the gate of a layer `size` wide, None without one."""
    if kind == "none":
        return None
    if kind == "static":
        return StaticGate(size, closed=closed)
    return Gate(size, {"channel": size, "scalar": 1}[kind], closed=closed)
