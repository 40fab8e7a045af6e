"""The teacher as transformers loads it, without this project's hooks."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, GgufConfig

from pipeline.device import DTYPES, choose_dtype
from pipeline.teacher.source import TeacherSource


def load_plain_teacher(
    source: TeacherSource, device: torch.device, *, dtype: str = "auto", with_lm_head: bool = True
) -> Any:
    """Return the teacher in evaluation mode on the device."""
    gguf = {"quantization_config": GgufConfig(dequantize=True)} if source.is_gguf else {}
    model = (AutoModelForCausalLM if with_lm_head else AutoModel).from_pretrained(
        source.location,
        dtype=DTYPES[choose_dtype(dtype, device)],
        trust_remote_code=False,
        **gguf,
        **source.options,
    )
    return model.eval().to(device)
