"""Where conversations come from: files on this machine, or a data set of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.data.conversations import Conversation, TokenRow
from pipeline.data.fields import require_unicode
from pipeline.data.files import find_files, is_file_source, rows_of_file
from pipeline.data.forms import (
    FORMS,
    FormName,
    Row,
    describe_forms,
    detect_form,
    ignored_fields,
    read_row,
)
from pipeline.errors import InputError, RowError, reason


@dataclass(frozen=True)
class ConversationSet:
    """The conversations of a data set.

    Attributes:
        source: the path or hub id they were read from.
        form: the form of its rows.
        conversations: in the data set's order.
        malformed: rows passed over because they do not have the form.
        first_malformed: the first of them, with its fault; empty where there is none.
        unread: columns and message fields with content that the form does not read, each with its
            number of rows.
    """

    source: str
    form: FormName
    conversations: list[Conversation]
    malformed: int
    unread: dict[str, int] = field(default_factory=dict)
    first_malformed: str = ""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what was read, wherever it lies and whatever file type it came in."""
        digest = hashlib.sha256()
        for conversation in self.conversations:
            digest.update(conversation.canonical() + b"\n")
        return digest.hexdigest()


def load_conversations(
    source: str,
    *,
    config: str | None = None,
    split: str = "train",
    form: FormName | None = None,
    limit: int | None = None,
    skip_bad_rows: bool = False,
    group_by: str | None = None,
) -> ConversationSet:
    """Read a data set's conversations.

    Args:
        source: a file, a folder of files, a pattern, or a hub id.
        config: which configuration of a hub data set, where it has several.
        split: which split of a hub data set.
        form: the form of the rows; detected from the columns of the first row if None.
        limit: read only this many rows.
        skip_bad_rows: count malformed rows instead of stopping at the first.
        group_by: the column that names each row's group.

    Raises:
        InputError: there is no such data set, it is empty, of no known form, or a row is malformed.
    """
    conversations: list[Conversation] = []
    malformed, first = 0, ""
    unread: Counter[str] = Counter()
    for index, (where, row) in enumerate(itertools.islice(_rows(source, config, split), limit)):
        try:
            if isinstance(row, RowError):
                raise row
            form = form or _detected(row)
            conversations.append(_conversation(str(index), row, form, group_by, where))
            unread.update({*ignored_fields(row, form)} - {group_by})
        except RowError as error:
            if not skip_bad_rows:
                raise bad_row_error(where, error) from error
            malformed, first = malformed + 1, first or f"{where}: {error}"
    if not conversations or form is None:
        found = (
            f"all {malformed} rows are malformed, {first}" if malformed else "the data set is empty"
        )
        raise InputError(f"{source}: {found}")
    return ConversationSet(
        source, form, conversations, malformed, dict(sorted(unread.items())), first
    )


def require_exists(source: str) -> None:
    """Find out whether a data set's files are there, before anything slow is done. What only the
    hub can know passes.

    Raises:
        InputError: there is no such file, or it is of no known kind.
    """
    if is_file_source(source):
        find_files(source)


def bad_row_error(where: str, error: RowError) -> InputError:
    """What to say of a row that cannot be used, with file and row."""
    return InputError(
        f"{where}: {error} (extract --skip-bad-rows leaves such rows out, and counts them)"
    )


def _conversation(
    row_id: str, row: Row, form: FormName, group_by: str | None, where: str
) -> Conversation:
    content = read_row(row, form)
    group = "" if group_by is None else _group(row, group_by)
    if isinstance(content, TokenRow):
        return Conversation(row_id, (), content, group, where)
    return Conversation(row_id, content, None, group, where)


def _group(row: Row, column: str) -> str:
    value = row.get(column)
    if isinstance(value, str):
        require_unicode(value, column)
    if (
        not isinstance(value, (str, int, float)) or value == "" or value != value
    ):  # the last: not a number
        raise RowError(
            f"field {column!r} names no group (--group-by): it is"
            f" {'missing' if value is None else repr(value)[:40]}"
        )
    return str(value)


def _detected(row: Row) -> FormName:
    form = detect_form(list(row))
    if form is None:
        near = FORMS["tokens"]
        hint = (
            f"input_ids needs {near.describe()}"
            if "input_ids" in row
            else "rename them, or name a form with --form"
        )
        raise RowError(
            f"columns {', '.join(map(repr, row)) or '(none)'} fit no known form"
            f" ({describe_forms()}); {hint}"
        )
    return form


def _rows(source: str, config: str | None, split: str) -> Iterator[tuple[str, Row | RowError]]:
    """Each row with the file and its place in it."""
    if not is_file_source(source):
        for index, row in enumerate(_hub_rows(source, config, split)):
            yield f"{source}: row {index}", row
        return
    for path in find_files(source):
        for index, found in enumerate(rows_of_file(path)):
            yield f"{path}: row {index}", found


def _hub_rows(source: str, config: str | None, split: str) -> Iterator[Mapping[str, Any]]:
    import datasets

    try:
        yield from datasets.load_dataset(source, config, split=split)
    except Exception as error:  # the hub client's errors have no common base
        raise InputError(
            f"{source}: neither a file here nor a data set that could be had from the hub"
            f" ({reason(error)})"
        ) from error
