"""The ways to generate text that `generate.py` compares."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from generate_joins import (
    AFTER_PROMPT,
    ALONE,
    JoinedWays,
    load_decoder,
    new_student,
    prompt_as_text,
    seconds_of,
)
from plain_teacher import load_plain_teacher

from cache import Cache
from pipeline.device import choose_dtype
from pipeline.generation.live_teacher import LiveTeacher
from pipeline.generation.prompt_states import PromptStates
from pipeline.model import LLMModulesForCausalLM
from pipeline.teacher.load import load_teacher
from pipeline.teacher.source import TeacherSource

LAYER = -1


def timers(
    cache: Cache,
    source: TeacherSource,
    student: str,
    device: torch.device,
    new_tokens: int,
    published_every: int,
    *,
    joins_only: bool = False,
) -> dict[str, Callable[[], float]]:
    """Load all models; return a function per way that generates once and returns the seconds.

    Args:
        cache: of one prompt.
        source: of the teacher.
        student: a size, or a pretrained decoder.
        device: of all models.
        new_tokens: tokens to generate.
        published_every: the published way computes every N-th token.
        joins_only: leave out `sequence` and the ways that it is compared with.
    """
    length = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
    options: dict[str, Any] = {**length, "do_sample": False, "pad_token_id": 0}
    ids_BT = torch.from_numpy(cache[0].input_ids.astype("int64"))[None].to(device)
    first_BT = torch.zeros(1, 1, dtype=torch.long, device=device)
    teacher = load_teacher(source, [LAYER], device, choose_dtype("auto", device))
    decoder, prompt = load_decoder(student, device), prompt_as_text(cache, student)
    text_BT = torch.tensor([prompt.ids], device=device)
    prompt_student = new_student(student, "prompt", width=teacher.width, device=device)

    def with_prompt(states: PromptStates) -> Any:
        hidden_BKD, mask_BK = states.read(ids_BT.tolist())
        return prompt_student.generate(
            first_BT,
            hidden_states=hidden_BKD.to(device),
            states_mask=mask_BK.to(device),
            **options,
        )

    ways: dict[str, Callable[[], Any]] = {
        ALONE: lambda: decoder.generate(first_BT, **options),
        AFTER_PROMPT: lambda: decoder.generate(
            text_BT, attention_mask=torch.ones_like(text_BT), **options
        ),
        "prompt": lambda: with_prompt(PromptStates([LAYER], lambda: teacher)),
        "prompt, cached": lambda: with_prompt(PromptStates([LAYER], lambda: teacher, cache)),
    }
    joined = JoinedWays(
        student=student,
        prompt=prompt,
        width=teacher.width,
        read=lambda: PromptStates([LAYER], lambda: teacher).read(ids_BT.tolist()),
        device=device,
        options=options,
    )
    prompt_timers = {
        **{name: partial(seconds_of, way) for name, way in ways.items()},
        **joined.timers(),
    }
    if joins_only:
        return prompt_timers
    whole_teacher = load_plain_teacher(source, device)
    sequence_student = new_student(
        student,
        "sequence",
        width=teacher.width,
        device=device,
        vocab_size=cache.manifest.vocab_size,
    )

    def with_sequence(reader: Any) -> Any:
        return sequence_student.generate(ids_BT, reader=reader, **options)

    sequence_ways: dict[str, Callable[[], Any]] = {
        "sequence": lambda: with_sequence(LiveTeacher(teacher, [LAYER], device)),
        "its student alone": lambda: with_sequence(_ZeroStates(teacher.width, device)),
        "teacher alone": lambda: whole_teacher.generate(
            ids_BT, attention_mask=torch.ones_like(ids_BT), **options
        ),
    }
    return {
        **prompt_timers,
        **{name: partial(seconds_of, way) for name, way in sequence_ways.items()},
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
