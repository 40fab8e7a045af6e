"""Conversations as token ids with a loss mask."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from pipeline.data.conversations import Conversation, Turn
from pipeline.data.templates import Segment, TemplateName, render, render_prompt

LossOn = Literal["assistant", "all"]


@dataclass(frozen=True)
class TokenizedExample:
    """One conversation as tokens.

    Attributes:
        row_id: the conversation's row id.
        input_ids: `[T]` int32.
        loss_mask: `[T]` bool, True where the student is to predict this token.
    """

    row_id: str
    input_ids: npt.NDArray[np.int32]
    loss_mask: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass
class TokenizedDataset:
    """Tokenised examples in the data set's order, and what was left out, by reason."""

    examples: list[TokenizedExample] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all row ids, token ids and loss masks."""
        digest = hashlib.sha256()
        for example in self.examples:
            digest.update(f"{example.row_id} {len(example)}\n".encode())
            digest.update(example.input_ids.tobytes() + example.loss_mask.tobytes())
        return digest.hexdigest()

    def leave_out(self, reason: str, count: int = 1) -> None:
        """Count rows that do not become examples."""
        self.left_out[reason] = self.left_out.get(reason, 0) + count


def tokenize_segments(
    segments: Sequence[Segment], tokenizer: PreTrainedTokenizerBase, loss_on: LossOn = "assistant"
) -> tuple[list[int], list[bool]]:
    """Token ids and loss mask of rendered segments, each tokenised by itself.

    The loss mask covers the segments that the assistant writes, or, with `loss_on="all"`, everything (the paper's way).
    """
    ids, mask = _leading_ids(tokenizer, segments), []
    mask += [loss_on == "all"] * len(ids)
    for segment in segments:
        piece = tokenizer(segment.text, add_special_tokens=False)["input_ids"]
        ids += piece
        mask += [segment.learn or loss_on == "all"] * len(piece)
    return ids, mask


def tokenize_prompt(turns: Sequence[Turn], template: TemplateName, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a prompt, ending where the assistant begins to write."""
    prompt = Segment(render_prompt(turns, template, tokenizer), learn=False)
    return tokenize_segments([prompt], tokenizer)[0]


def tokenize_conversations(
    conversations: Iterable[Conversation],
    tokenizer: PreTrainedTokenizerBase,
    *,
    template: TemplateName,
    loss_on: LossOn,
    max_tokens: int,
) -> TokenizedDataset:
    """Tokenise conversations; those of more than `max_tokens` tokens are left out whole and counted, never cut."""
    dataset = TokenizedDataset()
    for conversation in conversations:
        ids, mask = tokenize_segments(render(conversation.turns, template, tokenizer), tokenizer, loss_on)
        if len(ids) > max_tokens:
            dataset.leave_out(f"over {max_tokens} tokens")
        elif not any(mask[1:]):
            dataset.leave_out("nothing to learn (no assistant turn)")
        else:
            dataset.examples.append(TokenizedExample(conversation.row_id, np.asarray(ids, np.int32), np.asarray(mask, np.bool_)))
    return dataset


def _leading_ids(tokenizer: PreTrainedTokenizerBase, segments: Sequence[Segment]) -> list[int]:
    """The begin token, for tokenizers that put one before every text and unless the template wrote it."""
    bos = tokenizer.bos_token_id
    if bos is None or tokenizer("a")["input_ids"][:1] != [bos]:
        return []
    return [] if segments and segments[0].text.startswith(str(tokenizer.bos_token)) else [bos]
