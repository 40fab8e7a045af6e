"""The prompts of an evaluation, each with the answer that the data set gives."""

from __future__ import annotations

from typing import Any

from pipeline.data.conversations import Conversation
from pipeline.data.sources import load_conversations
from pipeline.errors import InputError


def held_out_prompts(record: dict[str, Any], dataset: str | None, row_ids: list[str], count: int) -> list[Conversation]:
    """Conversations that the student was not trained on.

    Args:
        record: the run's record.
        dataset: another data set, whose rows are all new to the student; None for the run's own.
        row_ids: the validation rows of the run's own data set.
        count: at most so many.

    Raises:
        InputError: the data set is not to be had, or the run's own has changed since.
    """
    provenance, identity = record["provenance"], record["identity"]["cache"]
    if dataset is not None and dataset != provenance["dataset"]:
        rows = load_conversations(dataset, split=provenance["split"], skip_bad_rows=provenance["skip_bad_rows"]).conversations
        return [row for row in rows if row.prompt_turns][:count]
    found = load_conversations(
        provenance["dataset"],
        split=provenance["split"],
        form=provenance["form"],
        limit=provenance["limit"],
        skip_bad_rows=provenance["skip_bad_rows"],
    )
    if found.fingerprint != identity["dataset"]:
        raise InputError(f"{found.source}: has changed since the cache was made; name the rows to answer with --dataset")
    by_id = {row.row_id: row for row in found.conversations}
    return [by_id[row_id] for row_id in row_ids if by_id[row_id].prompt_turns][:count]
