"""Conversations as token ids with a loss mask."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from pipeline.choices import ExtractCondition
from pipeline.data.conversations import Conversation, Turn
from pipeline.data.said import Answer, Said
from pipeline.data.templates import Segment, TemplateName, render, render_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LossOn = Literal["assistant", "all"]


@dataclass(frozen=True)
class TokenizedExample:
    """One conversation as tokens.

    Attributes:
        row_id: the conversation's row id.
        input_ids: `[T]` int32.
        loss_mask: `[T]` bool, True where the student is to predict this token.
        text: what is said, as `Said` puts it.
    """

    row_id: str
    input_ids: npt.NDArray[np.int32]
    loss_mask: npt.NDArray[np.bool_]
    text: str = ""

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass
class TokenizedDataset:
    """Tokenised examples in the data set's order, and what was left out, by reason."""

    examples: list[TokenizedExample] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all row ids, token ids, loss masks and texts."""
        digest = hashlib.sha256()
        for example in self.examples:
            digest.update(f"{example.row_id} {len(example)} {len(example.text)}\n".encode())
            digest.update(example.input_ids.tobytes() + example.loss_mask.tobytes() + example.text.encode())
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
    return _joined(_tokenized(segments, tokenizer), loss_on)


def _joined(pieces: Sequence[tuple[Segment, list[int]]], loss_on: LossOn) -> tuple[list[int], list[bool]]:
    ids = [token for _, piece in pieces for token in piece]
    return ids, [segment.learn or loss_on == "all" for segment, piece in pieces for _ in piece]


def _tokenized(segments: Sequence[Segment], tokenizer: PreTrainedTokenizerBase) -> list[tuple[Segment, list[int]]]:
    """Each segment with its token ids, after one for what the tokenizer puts before every text."""
    found = [(Segment("", learn=False), _leading_ids(tokenizer, segments))]
    return found + [(segment, tokenizer(segment.text, add_special_tokens=False)["input_ids"]) for segment in segments]


def tokenize_prompt(turns: Sequence[Turn], template: TemplateName, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a prompt, ending where the assistant begins to write."""
    return tokenize_segments(render_prompt(turns, template, tokenizer), tokenizer)[0]


def tokenize_conversations(
    conversations: Iterable[Conversation],
    tokenizer: PreTrainedTokenizerBase,
    *,
    template: TemplateName,
    loss_on: LossOn,
    max_tokens: int,
    condition: ExtractCondition = "sequence",
    last_answer_only: bool = False,
) -> TokenizedDataset:
    """Tokenise conversations; those of more than `max_tokens` tokens are left out whole and counted, never cut.

    Args:
        conversations: of the data set.
        tokenizer: the teacher's.
        template: how turns become text.
        loss_on: which tokens a student is to predict.
        max_tokens: of an example, as the teacher reads it.
        condition: whether the teacher reads whole examples, or what stands before their last answers.
        last_answer_only: no answer but the last is to be learned from: the teacher's states of a token know what comes after it.
    """
    dataset = TokenizedDataset()
    for conversation in conversations:
        pieces = _tokenized(render(conversation.turns, template, tokenizer), tokenizer)
        answers = _answers(conversation.turns, pieces)
        ids, mask = _joined(pieces, loss_on)
        if condition == "prompt":
            ids = ids[: answers[-1].start] if answers else []
            mask = [False] * len(ids)
        if len(ids) > max_tokens:
            dataset.leave_out(f"over {max_tokens} tokens")
        elif condition == "sequence" and not any(mask[1:]):
            dataset.leave_out("nothing to learn (no assistant turn)")
        elif not ids:
            dataset.leave_out("without a prompt (nothing before an assistant turn)")
        else:
            text = Said(conversation.turns, answers[-1:] if last_answer_only else answers).as_text()
            arrays = np.asarray(ids, np.int32), np.asarray(mask, np.bool_)
            dataset.examples.append(TokenizedExample(conversation.row_id, *arrays, text))
    return dataset


def _answers(turns: Sequence[Turn], pieces: Sequence[tuple[Segment, list[int]]]) -> tuple[Answer, ...]:
    """Where in the tokens each assistant turn begins."""
    ends = list(accumulate(len(piece) for _, piece in pieces))
    starts = [end - len(piece) for (segment, piece), end in zip(pieces, ends, strict=True) if segment.learn]
    written = [number for number, turn in enumerate(turns) if turn.role == "assistant"]
    return tuple(Answer(turn, start) for turn, start in zip(written, starts, strict=False))  # plain text is nobody's answer


def _leading_ids(tokenizer: PreTrainedTokenizerBase, segments: Sequence[Segment]) -> list[int]:
    """The begin token, for tokenizers that put one before every text and unless the template wrote it."""
    bos = tokenizer.bos_token_id
    if bos is None or tokenizer("a")["input_ids"][:1] != [bos]:
        return []
    return [] if segments and segments[0].text.startswith(str(tokenizer.bos_token)) else [bos]
