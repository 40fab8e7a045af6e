"""Rows of local files: one file, a folder, or a pattern such as `data/*.jsonl.gz`."""

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
"""Supported file name endings, for messages and help."""
_FIRST_LINES = 20
"""A `.json` file is read as JSON lines if one of its first lines, this many, is an object."""

FileRow = dict[str, Any] | RowError


def is_file_source(source: str) -> bool:
    """Return whether a data set's name is a local file, folder or pattern, not a hub id."""
    path = Path(source)
    kind = _kind(path)[0] if path.suffix else None
    return (
        kind is not None
        or path.exists()
        or _is_pattern(source)
        or bool(path.suffix and "/" not in source)  # a hub id has an owner
    )


def find_files(source: str) -> list[Path]:
    """Return the data files that a name matches, in order.

    Raises:
        InputError: there are none, or one has an unknown ending.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(
            file
            for file in path.rglob("*")
            if file.is_file() and _kind(file)[0] and not _is_hidden(file, path)
        )
        if not files:
            raise InputError(f"{path}: no data file in this folder; known endings: {FILE_KINDS}")
        return files
    if not path.exists() and _is_pattern(source):
        matches = glob.iglob(source, recursive=True)  # noqa: PTH207, a pattern may be absolute
        files = sorted(path for path in map(Path, matches) if path.is_file())
        if not files:
            raise InputError(f"{source}: no file matches this pattern")
    else:
        files = [path]
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: no such file")
        if _kind(file)[0] is None:
            raise InputError(f"{file}: not a data file; known endings: {FILE_KINDS}")
    return files


def rows_of_file(path: Path) -> Iterator[FileRow]:
    """Yield the rows of a file, and a `RowError` for each row that cannot be read.

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
    """Return a file's format and compression, according to its name."""
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
    """Open a file as UTF-8, without its byte order mark.

    Invalid bytes become lone surrogates, so that messages can name their row and field.
    """
    import pyarrow

    with path.open("rb") as raw:
        start = raw.read(4)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}: encoded in UTF-16 or UTF-32; save it as UTF-8")
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
    """Read an array of rows, or JSON lines despite the file's name."""
    with text:
        content = text.read()
    if content.lstrip().startswith("{"):
        lines = io.StringIO(content, newline=None)
        first_lines = itertools.islice((line for line in lines if line.strip()), _FIRST_LINES)
        if all(isinstance(parse_row(line, ""), RowError) for line in first_lines):
            raise InputError(f"{path}: not a JSON array of rows; name a file of JSON lines .jsonl")
        lines.seek(0)
        yield from json_lines(lines)
        return
    try:
        yield from json_array(content)
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); name a file of JSON lines .jsonl") from error


def _csv_rows(path: Path, text: io.TextIOWrapper) -> Iterator[FileRow]:
    csv.field_size_limit(sys.maxsize)
    with text:
        rows = csv.reader(text, strict=True)
        header = next(rows, [])
        if len({*header}) < len(header):
            raise InputError(
                f"{path}: the first line repeats a column; put the names of the columns there"
            )
        while True:
            line = rows.line_num + 1
            try:
                values = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                problem = (
                    "unclosed quote"
                    if "unexpected end" in str(error)
                    else f"not CSV ({error}); write a quote within quotes twice"
                )
                raise InputError(f"{path}: line {line}: {problem}") from error
            if not values:
                continue
            if len(values) == len(header):
                yield dict(zip(header, values, strict=True))
            else:
                yield RowError(
                    f"line {line} has {len(values)} values, but the first line has {len(header)}"
                    " columns"
                )


def _parquet_rows(path: Path) -> Iterator[FileRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = file.schema_arrow.names
        if len({*names}) < len(names):
            raise InputError(f"{path}: two columns of the same name; rename one")
        for batch in file.iter_batches():
            yield from _rows_of_batch(batch)
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: not a readable Parquet file ({error})") from error


def _rows_of_batch(batch: Any) -> Iterator[FileRow]:
    """Yield the rows of an Arrow batch.

    Rows are converted one by one if Python cannot represent a value, such as a date after 9999.
    """
    try:
        yield from batch.to_pylist()
        return
    except Exception:  # Arrow and Python raise various errors for such values
        pass
    for index in range(batch.num_rows):
        try:
            yield from batch.slice(index, 1).to_pylist()
        except Exception as error:
            yield RowError(f"a value cannot be read ({type(error).__name__}: {error})")


_READERS: dict[str, Callable[[Path, io.TextIOWrapper], Iterator[FileRow]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv_rows,
}
