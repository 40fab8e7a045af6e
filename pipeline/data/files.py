"""Rows of files on this machine: one file, a folder of files, or a pattern such as
`data/*.jsonl.gz`."""

from __future__ import annotations

import csv
import glob
import io
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.data.json_rows import json_array, json_lines, parse_row
from pipeline.errors import InputError, RowError

_COMPRESSION = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_KINDS = (".jsonl", ".json", ".csv", ".parquet")
FILE_KINDS = f"{', '.join(_KINDS)}, the first three also with {', '.join(_COMPRESSION)}"
"""The endings that are read, for messages and help."""
_FIRST_LINES = 20
"""Lines of a `.json` file of which one has to be an object, for the file to be read as lines."""

FileRow = dict[str, Any] | RowError


def is_file_source(source: str) -> bool:
    """Whether a data set's name is that of a file, folder or pattern here, and no hub id."""
    path = Path(source)
    kind = _kind(path)[0] if path.suffix else None
    return (
        kind is not None
        or path.exists()
        or _is_pattern(source)
        or bool(path.suffix and "/" not in source)
    )  # an id has an owner


def find_files(source: str) -> list[Path]:
    """The files that a name stands for, in order.

    Raises:
        InputError: there is none, or one is of no known kind.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(
            file
            for file in path.rglob("*")
            if file.is_file() and _kind(file)[0] and not _is_hidden(file, path)
        )
        if not found:
            raise InputError(f"{path}: no data file in this folder; known endings: {FILE_KINDS}")
        return found
    if not path.exists() and _is_pattern(source):
        matches = glob.iglob(source, recursive=True)  # noqa: PTH207, a pattern may be absolute
        found = sorted(path for path in map(Path, matches) if path.is_file())
        if not found:
            raise InputError(f"{source}: no file has such a name")
    else:
        found = [path]
    for file in found:
        if not file.is_file():
            raise InputError(f"{file}: no such file")
        if _kind(file)[0] is None:
            raise InputError(f"{file}: not a data set file; known endings: {FILE_KINDS}")
    return found


def rows_of_file(path: Path) -> Iterator[FileRow]:
    """The rows of a file; a row that cannot be read is an error in its place.

    Raises:
        InputError: the file as a whole cannot be read.
    """
    kind, compression = _kind(path)
    try:
        yield from (
            _parquet_rows(path)
            if kind == ".parquet"
            else _READERS[str(kind)](path, _text(path, compression))
        )
    except (OSError, EOFError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _kind(path: Path) -> tuple[str | None, str | None]:
    """A file's kind by its ending, and how it is compressed."""
    name = path.name.lower()
    compression = next((ending for ending in _COMPRESSION if name.endswith(ending)), None)
    kind = next(
        (kind for kind in _KINDS if name.removesuffix(compression or "").endswith(kind)), None
    )
    if kind == ".parquet" and compression:
        return None, None
    return kind, None if compression is None else _COMPRESSION[compression]


def _is_pattern(source: str) -> bool:
    return any(mark in source for mark in "*?[")


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _text(path: Path, compression: str | None) -> io.TextIOWrapper:
    """A file as text: a byte order mark is no data, and bytes that are no UTF-8 become lone
    surrogates, so that the row and field that hold them can be named."""
    import pyarrow

    with path.open("rb") as raw:
        start = raw.read(4)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}: is text in UTF-16 or UTF-32; save it as UTF-8")
    stream = (
        path.open("rb")
        if compression is None
        else pyarrow.input_stream(str(path), compression=compression)
    )
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _json_lines(path: Path, text: io.TextIOWrapper) -> Iterator[FileRow]:
    with text:
        yield from json_lines(text)


def _json(path: Path, text: io.TextIOWrapper) -> Iterator[FileRow]:
    """An array of rows; or one object a line, whatever the file's name says."""
    with text:
        content = text.read()
    if content.lstrip().startswith("{"):
        lines = io.StringIO(content, newline=None)
        begun = itertools.islice((line for line in lines if line.strip()), _FIRST_LINES)
        if all(isinstance(parse_row(line, ""), RowError) for line in begun):
            raise InputError(
                f"{path}: not a JSON array of rows (for one object a line, name the file .jsonl)"
            )
        lines.seek(0)
        yield from json_lines(lines)
        return
    try:
        yield from json_array(content)
    except ValueError as error:
        raise InputError(
            f"{path}: not JSON: {error} (for one object a line, name the file .jsonl)"
        ) from error


def _csv_rows(path: Path, text: io.TextIOWrapper) -> Iterator[FileRow]:
    csv.field_size_limit(sys.maxsize)
    with text:
        rows = csv.reader(text, strict=True)
        header = next(rows, [])
        if len({*header}) < len(header):
            raise InputError(
                f"{path}: the first line names a column twice; it has to hold the columns' names"
            )
        while True:
            began = rows.line_num + 1
            try:
                values = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                found = (
                    "a quote is opened and never closed"
                    if "unexpected end" in str(error)
                    else f"not CSV ({error})"
                )
                raise InputError(
                    f"{path}: line {began}: {found}; where the next row begins cannot be known"
                ) from error
            if not values:
                continue
            if len(values) == len(header):
                yield dict(zip(header, values, strict=True))
            else:
                yield RowError(
                    f"line {began} has {len(values)} values, the first line names {len(header)}"
                    " columns"
                )


def _parquet_rows(path: Path) -> Iterator[FileRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = file.schema_arrow.names
        if len({*names}) < len(names):
            raise InputError(f"{path}: two columns have the same name; rename one")
        for batch in file.iter_batches():
            yield from _rows_of_batch(batch)
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: not a Parquet file that can be read ({error})") from error


def _rows_of_batch(batch: Any) -> Iterator[FileRow]:
    """The rows of a batch of Arrow; one by one where a value is none that Python has, such as a
    date of the year 10,000."""
    try:
        yield from batch.to_pylist()
        return
    except Exception:  # Arrow and Python raise errors of many kinds for such values
        pass
    for index in range(batch.num_rows):
        try:
            yield from batch.slice(index, 1).to_pylist()
        except Exception as error:
            yield RowError(f"has a value that cannot be read ({type(error).__name__}: {error})")


_READERS: dict[str, Callable[[Path, io.TextIOWrapper], Iterator[FileRow]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv_rows,
}
