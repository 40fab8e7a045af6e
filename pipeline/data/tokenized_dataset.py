"""A data set as tokenised examples, each with loss mask and transcript."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.choices import LossOn
from pipeline.data.conversations import Conversation, TokenRow, Turn
from pipeline.data.sources import bad_row_error
from pipeline.data.templates import TemplateName, TextPart, render
from pipeline.data.token_pieces import token_pieces
from pipeline.data.tokens import loss_mask, require_known_tokens
from pipeline.data.transcript import Answer, Transcript
from pipeline.errors import RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenizedExample:
    """A conversation as tokens.

    Attributes:
        row_id: the conversation's row id.
        input_ids: `[T]` int32.
        loss_mask: `[T]` bool, True for the tokens that the student learns to predict.
        text: the transcript as JSON.
    """

    row_id: str
    input_ids: npt.NDArray[np.int32]
    loss_mask: npt.NDArray[np.bool_]
    text: str = ""

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass
class TokenizedDataset:
    """Tokenised examples in the data set's order.

    Attributes:
        examples: one for each row that was not left out.
        left_out: number of rows that were left out, by reason.
        first: the first unusable row and its problem, by reason.
        unknown: number of examples with characters that become the tokenizer's unknown token.
    """

    examples: list[TokenizedExample] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    unknown: int = 0

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of all row ids, token ids, loss masks and transcripts."""
        digest = hashlib.sha256()
        for example in self.examples:
            digest.update(f"{example.row_id} {len(example)} {len(example.text)}\n".encode())
            digest.update(
                example.input_ids.tobytes() + example.loss_mask.tobytes() + example.text.encode()
            )
        return digest.hexdigest()

    def leave_out(self, reason: str, count: int = 1) -> None:
        """Count rows that do not become examples."""
        self.left_out[reason] = self.left_out.get(reason, 0) + count


def tokenize_conversations(
    conversations: Iterable[Conversation],
    tokenizer: PreTrainedTokenizerBase,
    *,
    template: TemplateName,
    loss_on: LossOn,
    max_tokens: int,
    prompts_only: bool = False,
    last_answer_only: bool = False,
    vocab_size: int | None = None,
    skip_bad_rows: bool = False,
) -> TokenizedDataset:
    """Return the tokenised conversations; those of more than `max_tokens` are left out, never cut.

    Args:
        conversations: of the data set.
        tokenizer: the teacher's.
        template: how turns become text.
        loss_on: the tokens that a student learns to predict.
        max_tokens: of an example, as the teacher reads it.
        prompts_only: keep of each example what precedes its last answer.
        last_answer_only: learn only the last answer, as an encoder's states contain later text.
        vocab_size: rows of the teacher's embeddings.
        skip_bad_rows: leave out and count unusable rows instead of failing at the first.

    Raises:
        InputError: names a row that cannot be tokenised.
    """
    dataset, unknown = TokenizedDataset(), _unknown_token(tokenizer)
    for conversation in conversations:
        try:
            example = (
                _rendered_example(
                    conversation,
                    tokenizer,
                    template,
                    loss_on,
                    prompts_only=prompts_only,
                    last_answer_only=last_answer_only,
                )
                if conversation.tokens is None
                else _token_example(conversation.row_id, conversation.tokens, tokenizer)
            )
            require_known_tokens(example.input_ids, vocab_size, tokenizer)
        except RowError as error:
            where = conversation.where or f"row {conversation.row_id}"
            if not skip_bad_rows:
                raise bad_row_error(where, error) from error
            dataset.leave_out(error.kind)
            dataset.first.setdefault(error.kind, f"{where}: {error}")
            continue
        if len(example) > max_tokens:
            dataset.leave_out(f"over {max_tokens} tokens")
        elif not prompts_only and not example.loss_mask[1:].any():
            dataset.leave_out("nothing to learn (no assistant turn that carries loss)")
        elif not len(example):
            dataset.leave_out("without a prompt (nothing before an assistant turn)")
        else:
            dataset.examples.append(example)
            dataset.unknown += unknown is not None and bool((example.input_ids == unknown).any())
    return dataset


def _unknown_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the unknown token, or None if it also has another meaning, as in GPT-2."""
    others = {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id}
    return None if tokenizer.unk_token_id in others else tokenizer.unk_token_id


def _token_example(
    row_id: str, row: TokenRow, tokenizer: PreTrainedTokenizerBase
) -> TokenizedExample:
    learned = str(tokenizer.decode(row.input_ids[row.loss_mask], skip_special_tokens=True))
    text = Transcript((Turn("text", learned),), ()).to_json()
    return TokenizedExample(row_id, row.input_ids, row.loss_mask, text)


def _rendered_example(
    row: Conversation,
    tokenizer: PreTrainedTokenizerBase,
    template: TemplateName,
    loss_on: LossOn,
    *,
    prompts_only: bool,
    last_answer_only: bool,
) -> TokenizedExample:
    if loss_on == "all" and any(not turn.learn and turn.role != "assistant" for turn in row.turns):
        raise RowError(
            "a message that is not an assistant's has weight 0, which --loss-on all does not"
            " support; remove the weight or use --loss-on assistant"
        )
    parts = render(row.turns, template, tokenizer)
    pieces = token_pieces([part.text for part in parts], tokenizer)
    answers = _answers(row.turns, parts, pieces)
    ids = [token for piece in pieces for token in piece]
    mask = loss_mask(parts, pieces, loss_on)
    if prompts_only:
        ids = ids[: answers[-1].start] if answers else []
        mask = [False] * len(ids)
    text = Transcript(row.turns, answers[-1:] if last_answer_only else answers).to_json()
    return TokenizedExample(row.row_id, np.asarray(ids, np.int32), np.asarray(mask, np.bool_), text)


def _answers(
    turns: Sequence[Turn], parts: Sequence[TextPart], pieces: Sequence[Sequence[int]]
) -> tuple[Answer, ...]:
    """Return the answers to learn, with their positions in the tokens."""
    starts = list(accumulate(len(piece) for piece in pieces))  # pieces[0] precedes the first part
    answer_starts = [
        start for part, start in zip(parts, starts, strict=False) if part.learn or part.masked
    ]
    # Plain text is learned, but has no assistant turn.
    assistant_turns = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
    pairs = zip(assistant_turns, answer_starts, strict=False)
    return tuple(Answer(index, start) for index, start in pairs if turns[index].learn)
