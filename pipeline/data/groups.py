"""Rows that belong together: those of the same content, and those that the user's data puts into
one group."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from pipeline.data.conversations import Conversation
from pipeline.errors import InputError

GROUPS = "groups"
"""Name of the attachment of a cache that holds them."""
_FILE = "groups.json"


def find_groups(rows: Iterable[Conversation]) -> dict[str, int]:
    """The group of each row that shares one with another, by row id; groups are numbered in the
    order of their first rows.

    Rows are of one group where their words are the same, white space and case aside, or their
    group's name is; and where a third row joins them."""
    parents: dict[str, str] = {}
    first: dict[bytes, str] = {}
    order = []
    for row in rows:
        order.append(row.row_id)
        parents[row.row_id] = row.row_id
        for key in _keys(row):
            one, two = _root(parents, first.setdefault(key, row.row_id)), _root(parents, row.row_id)
            parents[two] = one
    members = defaultdict(list)
    for row_id in order:
        members[_root(parents, row_id)].append(row_id)
    shared = (rows for rows in members.values() if len(rows) > 1)
    return {row_id: number for number, rows in enumerate(shared) for row_id in rows}


def write_groups(folder: Path, groups: dict[str, int]) -> None:
    """Write the groups as an attachment; nothing where there are none."""
    if groups:
        folder.mkdir(parents=True)
        (folder / _FILE).write_text(json.dumps(groups) + "\n")


def read_groups(folder: Path) -> dict[str, int]:
    """The groups of an attachment.

    Raises:
        InputError: the file holds something else.
    """
    path = folder / _FILE
    try:
        groups = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if not isinstance(groups, dict) or not all(type(number) is int for number in groups.values()):
        raise InputError(f"{path}: does not give a group for each row")
    return groups


def _keys(row: Conversation) -> list[bytes]:
    if row.tokens is not None:
        content = row.tokens.input_ids.tobytes()
    else:
        words = [
            (turn.role, " ".join(turn.text.split()).casefold(), turn.fields) for turn in row.turns
        ]
        content = json.dumps(words).encode()
    keys = [b"content " + hashlib.sha256(content).digest()]
    return [*keys, b"group " + row.group.encode()] if row.group else keys


def _root(parents: dict[str, str], row_id: str) -> str:
    while parents[row_id] != row_id:
        parents[row_id] = parents[parents[row_id]]
        row_id = parents[row_id]
    return row_id
