"""Conversations as token ids with a loss mask."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from pipeline.data.conversations import Conversation, Turn
from pipeline.data.sources import bad_row_error
from pipeline.data.templates import TemplateName, TextPart, render, render_prompt
from pipeline.data.token_pieces import token_pieces
from pipeline.data.transcript import Answer, Transcript
from pipeline.errors import RowError

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
        text: what is said, as `Transcript` puts it.
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
        left_out: rows that were, by reason.
        first: the first row that was left out as unusable for each reason, with its fault.
        unknown: examples with characters that the tokenizer does not know, and reads as its unknown
            token.
    """

    examples: list[TokenizedExample] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    unknown: int = 0

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all row ids, token ids, loss masks and texts."""
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


def tokenize_parts(
    parts: Sequence[TextPart], tokenizer: PreTrainedTokenizerBase, loss_on: LossOn = "assistant"
) -> tuple[list[int], list[bool]]:
    """Token ids and loss mask of rendered parts.

    The loss mask covers the parts that the assistant writes, or, with `loss_on="all"`,
    everything (the paper's way) but what a row says is not to be learned."""
    pieces = token_pieces([part.text for part in parts], tokenizer)
    ids = [token for piece in pieces for token in piece]
    return ids, _loss_mask(parts, pieces, loss_on)


def _loss_mask(
    parts: Sequence[TextPart], pieces: Sequence[Sequence[int]], loss_on: LossOn
) -> list[bool]:
    """The mask of the tokens of some parts; the first piece is what the tokenizer puts before
    every text."""
    everything = loss_on == "all"
    learned = [
        everything,
        *(part.learn or (everything and not part.masked) for part in parts),
    ]
    return [learn for learn, piece in zip(learned, pieces, strict=True) for _ in piece]


def tokenize_prompt(
    turns: Sequence[Turn], template: TemplateName, tokenizer: PreTrainedTokenizerBase
) -> list[int]:
    """Token ids of a prompt, ending where the assistant begins to write."""
    return tokenize_parts(render_prompt(turns, template, tokenizer), tokenizer)[0]


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
    """Tokenise conversations; those of more than `max_tokens` tokens are left out whole and
    counted, never cut.

    Args:
        conversations: of the data set.
        tokenizer: the teacher's.
        template: how turns become text.
        loss_on: which tokens a student is to predict.
        max_tokens: of an example, as the teacher reads it.
        prompts_only: keep of each example what precedes its last answer.
        last_answer_only: learn no answer but the last: the teacher's states of a token know what
            comes after it.
        vocab_size: rows of the teacher's embeddings; a token beyond them cannot be read.
        skip_bad_rows: leave out, and count, rows that cannot become tokens, instead of stopping at
            the first.

    Raises:
        InputError: a row cannot become tokens; names it.
    """
    dataset, unknown = TokenizedDataset(), _unknown_token(tokenizer)
    for conversation in conversations:
        try:
            example = _tokenized(
                conversation,
                tokenizer,
                template,
                loss_on,
                prompts_only=prompts_only,
                last_answer_only=last_answer_only,
            )
            require_known_tokens(example.input_ids, vocab_size, tokenizer)
        except RowError as error:
            if not skip_bad_rows:
                raise bad_row_error(
                    conversation.where or f"row {conversation.row_id}", error
                ) from error
            dataset.leave_out(error.kind)
            dataset.first.setdefault(error.kind, f"{conversation.where}: {error}")
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
    """The token of unknown characters; None where it also has another meaning, as GPT-2's end token
    has."""
    others = {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id}
    return None if tokenizer.unk_token_id in others else tokenizer.unk_token_id


def _tokenized(
    row: Conversation,
    tokenizer: PreTrainedTokenizerBase,
    template: TemplateName,
    loss_on: LossOn,
    *,
    prompts_only: bool,
    last_answer_only: bool,
) -> TokenizedExample:
    if row.tokens is not None:
        learned = str(
            tokenizer.decode(row.tokens.input_ids[row.tokens.loss_mask], skip_special_tokens=True)
        )
        text = Transcript((Turn("text", learned),), ()).to_json()
        return TokenizedExample(row.row_id, row.tokens.input_ids, row.tokens.loss_mask, text)
    if loss_on == "all" and any(not turn.learn and turn.role != "assistant" for turn in row.turns):
        raise RowError(
            "a message that is no answer has weight 0, which --loss-on all cannot leave out"
        )
    parts = render(row.turns, template, tokenizer)
    pieces = token_pieces([part.text for part in parts], tokenizer)
    answers = _answers(row.turns, parts, pieces)
    ids = [token for piece in pieces for token in piece]
    mask = _loss_mask(parts, pieces, loss_on)
    if prompts_only:
        ids = ids[: answers[-1].start] if answers else []
        mask = [False] * len(ids)
    text = Transcript(row.turns, answers[-1:] if last_answer_only else answers).to_json()
    return TokenizedExample(row.row_id, np.asarray(ids, np.int32), np.asarray(mask, np.bool_), text)


def _answers(
    turns: Sequence[Turn], parts: Sequence[TextPart], pieces: Sequence[Sequence[int]]
) -> tuple[Answer, ...]:
    """Where in the tokens each answer begins that is to be learned."""
    starts = list(
        accumulate(len(piece) for piece in pieces)
    )  # pieces[0] stands before the first part
    written = [
        start for part, start in zip(parts, starts, strict=False) if part.learn or part.masked
    ]
    turned = [number for number, turn in enumerate(turns) if turn.role == "assistant"]
    found = zip(turned, written, strict=False)  # plain text is nobody's answer
    return tuple(Answer(number, start) for number, start in found if turns[number].learn)


def require_known_tokens(
    ids: Sequence[int] | npt.NDArray[np.int32],
    vocab_size: int | None,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Refuse tokens that a model has no embedding for.

    Raises:
        RowError: names the first.
    """
    if vocab_size is None:
        return
    ids = np.asarray(ids, np.int32)
    beyond = np.flatnonzero((ids < 0) | (ids >= vocab_size))
    if len(beyond):
        token = int(ids[beyond[0]])
        name = tokenizer.convert_ids_to_tokens(token) if 0 <= token < len(tokenizer) else None
        raise RowError(
            f"token {beyond[0]} is {token}{'' if name is None else f' ({name})'}, and the model has"
            f" embeddings for tokens 0 to {vocab_size - 1} alone",
            "tokens beyond the teacher's embeddings",
        )
