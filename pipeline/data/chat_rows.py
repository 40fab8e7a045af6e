"""Conversations as rows of the form `chat`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pipeline.data.conversations import Turn


def chat_row(turns: Sequence[Turn], **columns: str) -> dict[str, Any]:
    """Return turns as a row that reads back as the same turns.

    Args:
        turns: of a conversation, not plain text.
        columns: further columns, which precede the messages.
    """
    tools = [tool for turn in turns if turn.role == "tools" for tool in json.loads(turn.text)]
    messages = [
        {"role": turn.role, "content": turn.text, **turn.extra}
        | ({} if turn.learn else {"weight": 0})
        for turn in turns
        if turn.role != "tools"
    ]
    return {**columns, **({"tools": tools} if tools else {}), "messages": messages}
