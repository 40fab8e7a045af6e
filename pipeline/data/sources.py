"""Sources of conversations: local files, or a data set of the Hugging Face hub."""

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
        source: path or hub id.
        form: of the rows.
        conversations: in the data set's order.
        malformed: number of skipped rows that do not fit the form.
        unread: number of rows with content, by column or message field that the form ignores.
        first_malformed: the first skipped row and its problem; empty if there is none.
    """

    source: str
    form: FormName
    conversations: list[Conversation]
    malformed: int
    unread: dict[str, int] = field(default_factory=dict)
    first_malformed: str = ""

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the content, regardless of location and file format."""
        digest = hashlib.sha256()
        for conversation in self.conversations:
            digest.update(conversation.canonical_bytes() + b"\n")
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
    """Return a data set's conversations.

    Args:
        source: a file, a folder of files, a pattern, or a hub id.
        config: the configuration of a hub data set that has several.
        split: the split of a hub data set.
        form: of the rows; if None, detected from the columns of the first row.
        limit: the number of rows to read.
        skip_bad_rows: count malformed rows instead of failing at the first.
        group_by: the column with each row's group.

    Raises:
        InputError: the data set is missing, empty or of unknown form, or a row is malformed.
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
        problem = f"all {malformed} rows are malformed; the first, {first}"
        raise InputError(f"{source}: {problem if malformed else 'the data set is empty'}")
    return ConversationSet(
        source, form, conversations, malformed, dict(sorted(unread.items())), first
    )


def require_exists(source: str) -> None:
    """Refuse a missing local data set early; hub ids are not looked up.

    Raises:
        InputError: there is no such file, or its ending is unknown.
    """
    if is_file_source(source):
        find_files(source)


def bad_row_error(where: str, error: RowError) -> InputError:
    """Return the error of an unusable row, with file and row."""
    return InputError(f"{where}: {error} (`--skip-bad-rows` skips and counts such rows)")


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
    is_nan = value != value
    if not isinstance(value, (str, int, float)) or value == "" or is_nan:
        problem = "missing" if value is None else f"{value!r:.40}, not a name or number"
        raise RowError(f"field {column!r}, the row's group (--group-by), is {problem}")
    return str(value)


def _detected(row: Row) -> FormName:
    form = detect_form(list(row))
    if form is None:
        hint = (
            f"tokenised rows need {FORMS['tokens'].describe()}"
            if "input_ids" in row
            else "rename them, or choose a form with --form"
        )
        raise RowError(
            f"columns {', '.join(map(repr, row)) or '(none)'} fit no known form"
            f" ({describe_forms()}); {hint}"
        )
    return form


def _rows(source: str, config: str | None, split: str) -> Iterator[tuple[str, Row | RowError]]:
    """Yield each row after its file and index, for messages."""
    if not is_file_source(source):
        for index, row in enumerate(_hub_rows(source, config, split)):
            yield f"{source}: row {index}", row
        return
    for path in find_files(source):
        for index, file_row in enumerate(rows_of_file(path)):
            yield f"{path}: row {index}", file_row


def _hub_rows(source: str, config: str | None, split: str) -> Iterator[Mapping[str, Any]]:
    import datasets

    try:
        yield from datasets.load_dataset(source, config, split=split)
    except Exception as error:  # the hub client's errors have no common base
        raise InputError(
            f"{source}: neither a local file nor a data set that the hub provides ({reason(error)})"
        ) from error
