"""Where conversations come from: a file on this machine, or a data set of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.data.conversations import Conversation
from pipeline.data.forms import FormName, MalformedRowError, Row, describe_forms, detect_form, turns_of
from pipeline.errors import InputError, reason

_SUFFIXES = (".jsonl", ".json", ".parquet")


@dataclass(frozen=True)
class ConversationSet:
    """The conversations of a data set.

    Attributes:
        source: the path or hub id they were read from.
        form: the form of its rows.
        conversations: in the data set's order.
        malformed: rows passed over because they do not have the form.
    """

    source: str
    form: FormName
    conversations: list[Conversation]
    malformed: int

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what was read, wherever it lies and whatever file type it came in."""
        digest = hashlib.sha256()
        for conversation in self.conversations:
            digest.update(json.dumps(asdict(conversation), sort_keys=True).encode() + b"\n")
        return digest.hexdigest()


def load_conversations(
    source: str,
    *,
    config: str | None = None,
    split: str = "train",
    form: FormName | None = None,
    limit: int | None = None,
    skip_bad_rows: bool = False,
) -> ConversationSet:
    """Read a data set's conversations.

    Args:
        source: a `.jsonl`, `.json` or `.parquet` file, or a hub id.
        config: which configuration of a hub data set, where it has several.
        split: which split of a hub data set.
        form: the form of the rows; detected from the columns of the first row if None.
        limit: read only so many rows.
        skip_bad_rows: count malformed rows instead of stopping at the first.

    Raises:
        InputError: there is no such data set, it is empty, of no known form, or a row is malformed.
    """
    conversations: list[Conversation] = []
    malformed, first = 0, ""
    for index, row in enumerate(itertools.islice(_rows(source, config, split), limit)):
        try:
            if isinstance(row, MalformedRowError):
                raise row
            form = form or _detected(source, row)
            conversations.append(Conversation(str(index), turns_of(row, form)))
        except MalformedRowError as error:
            if not skip_bad_rows:
                raise InputError(
                    f"{source}: row {index}: {error}; mend it (extract --skip-bad-rows leaves such rows out, and counts them)"
                ) from error
            malformed, first = malformed + 1, first or f"row {index}: {error}"
    if not conversations or form is None:
        found = f"all {malformed} rows are malformed, {first}" if malformed else "the data set is empty"
        raise InputError(f"{source}: {found}")
    return ConversationSet(source, form, conversations, malformed)


def _detected(source: str, row: Row) -> FormName:
    form = detect_form(list(row))
    if form is None:
        raise InputError(
            f"{source}: columns {', '.join(map(repr, row))} fit no known form ({describe_forms()}); "
            "rename them, or name a form with extract --form"
        )
    return form


def require_there(source: str) -> None:
    """Find out whether a data set's files are there, before anything slow is done. What only the hub can know passes.

    Raises:
        InputError: there is no such file.
    """
    if _names_file(source):
        _require_file(Path(source))


def _names_file(source: str) -> bool:
    path = Path(source)
    return path.suffix in _SUFFIXES or path.exists() or bool(path.suffix and "/" not in source)  # a hub id has an owner


def _require_file(path: Path) -> None:
    if not path.is_file():
        found = "is a folder; name a file in it" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {found}")
    if path.suffix not in _SUFFIXES:
        raise InputError(f"{path}: not a data set file; known endings: {', '.join(_SUFFIXES)}")


def _rows(source: str, config: str | None, split: str) -> Iterator[Row | MalformedRowError]:
    if _names_file(source):
        return _local_rows(Path(source))
    return _hub_rows(source, config, split)


def _local_rows(path: Path) -> Iterator[Row | MalformedRowError]:
    _require_file(path)
    try:
        if path.suffix == ".jsonl":
            yield from _json_lines(path)
        elif path.suffix == ".json":
            yield from _json_array(path)
        else:
            yield from _parquet_rows(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _json_lines(path: Path) -> Iterator[Row | MalformedRowError]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _parsed(line, f"line {number}")


def _parsed(text: str, where: str) -> Row | MalformedRowError:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        return MalformedRowError(f"{where} is not JSON ({error.msg} at character {error.pos + 1})")
    return row if isinstance(row, dict) else MalformedRowError(f"{where} is not a JSON object")


def _json_array(path: Path) -> Iterator[Row | MalformedRowError]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(rows, list):
        raise InputError(f"{path}: not a JSON array of rows (for one object a line, name the file .jsonl)")
    for row in rows:
        yield row if isinstance(row, dict) else MalformedRowError("is not a JSON object")


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: not a Parquet file ({error})") from error


def _hub_rows(source: str, config: str | None, split: str) -> Iterator[Row]:
    import datasets

    try:
        yield from datasets.load_dataset(source, config, split=split)
    except Exception as error:  # the hub client's errors have no common base
        raise InputError(
            f"{source}: neither a file here nor a data set that could be had from the hub ({reason(error)})"
        ) from error
