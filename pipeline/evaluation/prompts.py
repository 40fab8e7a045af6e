"""The prompts of an evaluation, each with the answer that the data set gives; none that the student was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from cache import Cache
from pipeline.data.conversations import Conversation
from pipeline.data.sources import load_conversations
from pipeline.data.templates import render
from pipeline.data.tokens import tokenize_segments
from pipeline.errors import InputError


@dataclass(frozen=True)
class HeldOutPrompts:
    """Conversations to answer, and how many were left out, by reason."""

    conversations: list[Conversation]
    left_out: dict[str, int]


def own_rows(record: dict[str, Any], row_ids: Iterable[str]) -> list[Conversation]:
    """The rows of those ids of the data set that a run was trained from.

    Raises:
        InputError: the data set is not to be had, or has changed since.
    """
    origin = record["provenance"]
    found = load_conversations(
        origin["dataset"],
        config=origin["dataset_config"],
        split=origin["split"],
        form=origin["form"],
        limit=origin["limit"],
        skip_bad_rows=origin["skip_bad_rows"],
    )
    if found.fingerprint != record["identity"]["cache"]["dataset"]:
        raise InputError(f"{found.source}: has changed since the cache was made; name rows to answer with --dataset")
    by_id = {row.row_id: row for row in found.conversations}
    return [by_id[row_id] for row_id in row_ids]


def unseen_prompts(
    rows: Sequence[Conversation],
    record: dict[str, Any],
    cache: Cache,
    training_rows: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    *,
    longest: int,
    count: int,
) -> HeldOutPrompts:
    """The first `count` rows that ask something which no training example asked, of at most `longest` tokens.

    They are compared by their prompts' tokens, so it does not matter which file a row comes from.
    """
    identity = record["identity"]["cache"]
    seen = {_prompt_key(example.input_ids, example.loss_mask) for example in (cache.example(i, ()) for i in training_rows)}
    chosen: list[Conversation] = []
    left_out: dict[str, int] = {}
    for row in rows:
        if len(chosen) == count:
            break
        ids, mask = tokenize_segments(render(row.turns, identity["template"], tokenizer), tokenizer, identity["loss_on"])
        reason = None
        if not row.prompt_turns:
            reason = "asks nothing (plain text)"
        elif _prompt_key(np.asarray(ids, np.int32), np.asarray(mask, np.bool_)) in seen:
            reason = "was trained on"
        elif len(ids) > longest:
            reason = f"over {longest} tokens"
        if reason is None:
            chosen.append(row)
        else:
            left_out[reason] = left_out.get(reason, 0) + 1
    return HeldOutPrompts(chosen, left_out)


def _prompt_key(input_ids_T: npt.NDArray[np.int32], loss_mask_T: npt.NDArray[np.bool_]) -> bytes:
    """The tokens before the first that is learned, or all of them where all are learned."""
    learned = int(loss_mask_T.argmax()) if loss_mask_T.any() else len(input_ids_T)
    return input_ids_T[: learned or len(input_ids_T)].tobytes()
