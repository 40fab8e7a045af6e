"""The frozen teacher: its body without the LM head, giving the hidden states of the layers asked for and no others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, Cache, GgufConfig, PreTrainedConfig, PreTrainedModel

from pipeline.device import DTYPES, DtypeName
from pipeline.errors import InputError
from pipeline.teacher.source import TeacherSource


def resolve_layers(layers: Sequence[int], config: PreTrainedConfig) -> dict[int, int]:
    """Each layer asked for with its index counted from the embeddings (0) to the output after the final norm.

    Raises:
        InputError: no such layer, or one asked for twice.
    """
    last = int(config.num_hidden_layers)
    resolved = {layer: layer if layer >= 0 else last + 1 + layer for layer in layers}
    for layer, index in resolved.items():
        if not 0 <= index <= last:
            raise InputError(f"--layers {layer}: the teacher has layers 0 (embeddings) to {last} (or -{last + 1} to -1)")
    if len(set(resolved.values())) < len(layers):
        raise InputError(f"--layers {','.join(map(str, layers))}: the same layer twice")
    return resolved


class Teacher:
    """A frozen decoder that reads tokens and gives hidden states.

    Layer indices are those of transformers' `hidden_states`: 0 the embeddings, i the output of block i, and the last one
    (or -1) the output after the final norm.
    """

    def __init__(self, body: PreTrainedModel, layers: Sequence[int]) -> None:
        """Freeze a body.

        Raises:
            InputError: it has no such layer, or is built in a way that does not show its layers.
        """
        self.body = body.eval().requires_grad_(False)
        self.layers = resolve_layers(layers, body.config)
        self._blocks = _find_blocks(body)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self.body.device
        return device

    @torch.inference_mode()
    def hidden_states(
        self, input_ids_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None = None, past: Cache | None = None
    ) -> dict[int, torch.Tensor]:
        """Hidden states `[B, T, d_teacher]` of each asked layer.

        Args:
            input_ids_BT: token ids.
            attention_mask_BT: 1 for tokens, 0 for padding; with `past`, over all tokens so far.
            past: the teacher's key-value cache of the tokens before these; extended in place.
        """
        positions_BT = None
        if attention_mask_BT is not None:
            positions_BT = (attention_mask_BT.cumsum(-1) - 1).clamp(min=0)[:, -input_ids_BT.shape[1] :]
        with self._kept() as kept:
            output = self.body(
                input_ids=input_ids_BT,
                attention_mask=attention_mask_BT,
                position_ids=positions_BT,
                past_key_values=past,
                use_cache=past is not None,
            )
        kept[len(self._blocks)] = output.last_hidden_state
        return {layer: kept[index] for layer, index in self.layers.items()}

    @contextmanager
    def _kept(self) -> Iterator[dict[int, torch.Tensor]]:
        """Collects what enters block 0 and what leaves the other asked blocks, while the body runs."""
        kept: dict[int, torch.Tensor] = {}

        def keep_input(_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            kept[0] = args[0] if args else kwargs["hidden_states"]

        def keep_output(index: int) -> Any:
            def hook(_block: nn.Module, _args: Any, output: Any) -> None:
                kept[index] = output[0] if isinstance(output, tuple) else output

            return hook

        handles = []
        for index in self.layers.values():
            if index == 0:
                handles.append(self._blocks[0].register_forward_pre_hook(keep_input, with_kwargs=True))
            elif index < len(self._blocks):
                handles.append(self._blocks[index - 1].register_forward_hook(keep_output(index)))
        try:
            yield kept
        finally:
            for handle in handles:
                handle.remove()


def load_teacher(source: TeacherSource, layers: Sequence[int], device: torch.device, dtype: DtypeName) -> Teacher:
    """Load a teacher's body, frozen, without its LM head.

    Raises:
        InputError: the weights cannot be had, or have no such layer.
    """
    # A GGUF file's blocks are unpacked once: left packed, every forward pass would unpack them anew.
    kind: dict[str, Any] = {"quantization_config": GgufConfig(dequantize=True)} if source.options else {"use_safetensors": True}
    try:
        body = AutoModel.from_pretrained(source.location, dtype=DTYPES[dtype], **kind, **source.options)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"teacher {source.name}: its weights cannot be loaded ({reason})") from error
    return Teacher(body.to(device), layers)


def _find_blocks(body: PreTrainedModel) -> nn.ModuleList:
    count = int(body.config.num_hidden_layers)
    for module in body.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise InputError(f"teacher {type(body).__name__}: none of its module lists has the {count} layers that its config names")
