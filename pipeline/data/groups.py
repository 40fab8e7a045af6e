"""Groups of rows: those with equal content, and those that the data set assigns to one group."""

from __future__ import annotations

import functools
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.data.attachments import read_json, write_json
from pipeline.data.conversations import Conversation
from pipeline.errors import InputError

if TYPE_CHECKING:
    from cache import Cache

GROUPS = "groups"
"""Name of the cache's attachment."""
_FILE = "groups.json"


def find_groups(rows: Iterable[Conversation]) -> dict[str, int]:
    """Return the group of each row that shares one, by row id.

    Rows share a group if their text is equal apart from white space and case, if the data set gives
    them the same group, or if both share one with a third row. Groups are numbered in the order of
    their first rows.
    """
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
    """Write the groups as an attachment, if there are any."""
    if groups:
        write_json(folder / _FILE, groups)


def groups_of(cache: Cache) -> dict[str, int]:
    """Return the group of each grouped row, by row id; empty for caches of older releases.

    Raises:
        InputError: the attachment has other content.
    """
    return read_groups(cache.attachment(GROUPS)) if cache.has_attachment(GROUPS) else {}


def read_groups(folder: Path) -> dict[str, int]:
    """Return the groups of an attachment, which is parsed once; do not change them.

    Raises:
        InputError: the file is unreadable, or does not map row ids to numbers.
    """
    path = folder / _FILE
    return _parsed(path, path.stat().st_mtime_ns if path.is_file() else 0)


@functools.lru_cache(maxsize=2)
def _parsed(path: Path, _modified: int) -> dict[str, int]:
    groups = read_json(path)
    if not isinstance(groups, dict) or not all(type(number) is int for number in groups.values()):
        raise InputError(f"{path}: not a mapping of row ids to groups; extract the cache again")
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
