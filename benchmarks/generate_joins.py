"""Students of prompts that read the prompt as text, one per join, for `generate.py`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GPTNeoConfig, GPTNeoForCausalLM

from cache import Cache
from pipeline.choices import JOINS
from pipeline.data.alignment import AlignedPrompt, TeacherReading, align_prompt
from pipeline.data.student_tokens import load_student_tokenizer
from pipeline.data.transcript import transcript_of
from pipeline.model import LLMModulesForCausalLM, build_student
from pipeline.pretrained.load import load_model
from pipeline.pretrained.source import find_model
from pipeline.runs.examples import teachers_tokenizer
from pipeline.shapes import SIZES, BridgeShape

GPT_NEO_TOKENS = 50257
ALONE, AFTER_PROMPT = "decoder alone", "decoder alone, after the prompt"
JOINED: dict[str, tuple[Any, ...]] = {
    f"text and {' + '.join(join)}": join
    for join in (*((name,) for name in JOINS), ("cross", "add"))
}
"""The joins of each way whose student reads the prompt as text, too."""
_POSITIONS = 4096


def reference_of(way: str) -> str:
    """Return the way that another is compared with: the bare decoder, after the same tokens."""
    return AFTER_PROMPT if way in JOINED or way == AFTER_PROMPT else ALONE


def seconds_of(way: Callable[[], Any]) -> float:
    """Return the seconds of a way to generate."""
    began = time.perf_counter()
    way()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - began


def load_decoder(student: str, device: torch.device) -> Any:
    """Return the bare decoder as transformers loads it: new for a size, else its own weights."""
    if student not in SIZES:
        model = load_model(AutoModelForCausalLM, find_model("student", student)).float()
    else:
        model = GPTNeoForCausalLM(
            GPTNeoConfig(
                **SIZES[student],
                vocab_size=GPT_NEO_TOKENS,
                bos_token_id=0,
                eos_token_id=0,
                max_position_embeddings=_POSITIONS,
            )
        )
    return model.eval().to(device)


def new_student(
    student: str,
    condition: str,
    *,
    width: int,
    device: torch.device,
    vocab_size: int | None = None,
    bridge: BridgeShape | None = None,
) -> LLMModulesForCausalLM:
    """Return an untrained student.

    Args:
        student: a size, or a pretrained decoder.
        condition: what it reads.
        width: of the teacher's states.
        device: of the student.
        vocab_size: number of its tokens; None: the decoder's.
        bridge: its shape.
    """
    own_tokens = GPT_NEO_TOKENS if student in SIZES else 1  # a pretrained one keeps all of its own
    model = build_student(
        student,
        vocab_size=own_tokens if vocab_size is None else vocab_size,
        longest=_POSITIONS if student in SIZES else 1,
        teacher_hidden_size=width,
        condition=condition,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        bridge=bridge,
    )
    return torch.nn.Module.to(model, device).eval()  # type: ignore[return-value]


def prompt_as_text(cache: Cache, student: str) -> AlignedPrompt:
    """Return the cached prompt in student tokens, aligned with its states.

    A new GPT-Neo reads the teacher's tokens, as many as it has.
    """
    theirs = teachers_tokenizer(cache)
    ours = theirs if student in SIZES else load_student_tokenizer(student)
    transcript = transcript_of(cache, 0)
    turns = transcript.prompt_of(transcript.answers[0])
    reading = TeacherReading(cache.identity["template"], theirs)
    aligned = align_prompt(turns, reading, reading.locate(turns), ours)
    if student not in SIZES:
        return aligned
    ids = [min(token, GPT_NEO_TOKENS - 1) for token in aligned.ids]
    return AlignedPrompt(ids=ids, places=aligned.places)


@dataclass(frozen=True, kw_only=True)
class JoinedWays:
    """The ways of students that read the prompt as text.

    Attributes:
        student: a size, or a pretrained decoder.
        prompt: in student tokens.
        width: of the teacher's states.
        read: returns the states of the prompt and their mask, as its teacher computes them.
        device: of the student.
        options: of `generate`.
    """

    student: str
    prompt: AlignedPrompt
    width: int
    read: Callable[[], tuple[torch.Tensor, torch.Tensor]]
    device: torch.device
    options: dict[str, Any]

    def timers(self) -> dict[str, Callable[[], float]]:
        """Return a function per join that generates once and returns the seconds."""
        return {way: partial(self._seconds, join) for way, join in JOINED.items()}

    def _seconds(self, join: Sequence[Any]) -> float:
        """Time a student that is in memory only while it is measured."""
        shape = BridgeShape(join=tuple(join), prompt_text=True)
        model = new_student(
            self.student, "prompt", width=self.width, device=self.device, bridge=shape
        )
        self._generate(model, {"max_new_tokens": 2})  # the first steps are slow
        return seconds_of(lambda: self._generate(model, self.options))

    def _generate(self, model: LLMModulesForCausalLM, options: dict[str, Any]) -> None:
        hidden_BKD, mask_BK = self.read()
        ids_BT = torch.tensor([self.prompt.ids], device=self.device)
        model.generate(
            ids_BT,
            attention_mask=torch.ones_like(ids_BT),
            hidden_states=hidden_BKD.to(self.device),
            states_mask=mask_BK.to(self.device),
            state_places=torch.tensor([self.prompt.places], device=self.device),
            **options,
        )
