"""The ways to generate text that `generate.py` compares."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from plain_teacher import load_plain_teacher
from transformers import GPTNeoConfig, GPTNeoForCausalLM

from cache import Cache
from pipeline.device import choose_dtype
from pipeline.generation.live_teacher import LiveTeacher
from pipeline.generation.prompt_states import PromptStates
from pipeline.model import LLMModulesForCausalLM, build_student
from pipeline.shapes import SIZES
from pipeline.teacher.load import load_teacher
from pipeline.teacher.source import TeacherSource

GPT_NEO_TOKENS = 50257
LAYER = -1


def timers(
    cache: Cache,
    source: TeacherSource,
    student: str,
    device: torch.device,
    new_tokens: int,
    published_every: int,
) -> dict[str, Callable[[], float]]:
    """Load all models; return a function per way that generates once and returns the seconds.

    Args:
        cache: of one prompt.
        source: of the teacher.
        student: name of its size.
        device: of all models.
        new_tokens: tokens to generate.
        published_every: the published way computes every N-th token.
    """
    length = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
    options: dict[str, Any] = {**length, "do_sample": False, "pad_token_id": 0}
    ids_BT = torch.from_numpy(cache[0].input_ids.astype("int64"))[None].to(device)
    first_BT = torch.zeros(1, 1, dtype=torch.long, device=device)
    teacher = load_teacher(source, [LAYER], device, choose_dtype("auto", device))
    whole_teacher = load_plain_teacher(source, device)
    shape = GPTNeoConfig(
        **SIZES[student], vocab_size=GPT_NEO_TOKENS, bos_token_id=0, eos_token_id=0
    )
    gpt_neo = GPTNeoForCausalLM(shape).eval().to(device)
    new_student = partial(_new_student, student, width=teacher.width, device=device)
    prompt_student = new_student("prompt", GPT_NEO_TOKENS)
    sequence_student = new_student("sequence", cache.manifest.vocab_size)

    def with_prompt(states: PromptStates) -> Any:
        hidden_BKD, mask_BK = states.read(ids_BT.tolist())
        return prompt_student.generate(
            first_BT,
            hidden_states=hidden_BKD.to(device),
            states_mask=mask_BK.to(device),
            **options,
        )

    def with_sequence(reader: Any) -> Any:
        return sequence_student.generate(ids_BT, reader=reader, **options)

    ways: dict[str, Callable[[], Any]] = {
        "GPT-Neo alone": lambda: gpt_neo.generate(first_BT, **options),
        "prompt": lambda: with_prompt(PromptStates([LAYER], lambda: teacher)),
        "prompt, cached": lambda: with_prompt(PromptStates([LAYER], lambda: teacher, cache)),
        "sequence": lambda: with_sequence(LiveTeacher(teacher, [LAYER], device)),
        "its student alone": lambda: with_sequence(_ZeroStates(teacher.width, device)),
        "teacher alone": lambda: whole_teacher.generate(
            ids_BT, attention_mask=torch.ones_like(ids_BT), **options
        ),
    }
    return {
        **{name: partial(_seconds_of, way) for name, way in ways.items()},
        "published": partial(
            _published_seconds, whole_teacher, sequence_student, ids_BT, new_tokens, published_every
        ),
    }


class _ZeroStates:
    """Reader whose states need no computation."""

    def __init__(self, width: int, device: torch.device) -> None:
        self._width, self._device = width, device

    def read(
        self, input_ids_BK: torch.Tensor, attention_mask_BK: torch.Tensor | None, first: int
    ) -> torch.Tensor:
        batch, length = input_ids_BK.shape
        return torch.zeros(batch, length - first, self._width, device=self._device)


def _new_student(
    size: str, condition: str, vocab_size: int, *, width: int, device: torch.device
) -> LLMModulesForCausalLM:
    """Return a student with random weights."""
    model = build_student(
        size,
        vocab_size=vocab_size,
        longest=2048,
        teacher_hidden_size=width,
        condition=condition,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return torch.nn.Module.to(model, device).eval()  # type: ignore[return-value]


def _seconds_of(way: Callable[[], Any]) -> float:
    began = time.perf_counter()
    way()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - began


@torch.inference_mode()
def _published_seconds(
    teacher: Any, student: LLMModulesForCausalLM, ids_BT: torch.Tensor, new_tokens: int, every: int
) -> float:
    """Return the seconds for `new_tokens` tokens, extrapolated from every `every`-th length."""
    lengths = range(ids_BT.shape[1], ids_BT.shape[1] + new_tokens, every)
    total = 0.0
    for length in lengths:
        text_BT = torch.zeros(1, length, dtype=torch.long, device=ids_BT.device)
        began = time.perf_counter()
        output = teacher(input_ids=text_BT, output_hidden_states=True, use_cache=False)
        logits = student(hidden_states=output.hidden_states[LAYER], use_cache=False).logits
        logits[0, -1].argmax().item()
        total += time.perf_counter() - began
    return total * new_tokens / len(lengths)
