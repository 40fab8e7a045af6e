"""Rows of data files in every format and compression; unreadable files."""

import bz2
import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data.files import find_files, is_file_source, rows_of_file
from pipeline.data.json_rows import json_array, parse_row
from pipeline.errors import InputError, RowError

ROWS = [{"question": f"Q{i}", "answer": f"A{i}"} for i in range(4)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
ARRAY = json.dumps(ROWS).encode()
CSV = b"question,answer\n" + b"".join(f"Q{i},A{i}\n".encode() for i in range(4))
MARK = b"\xef\xbb\xbf"


def packed(content: bytes) -> bytes:
    """Compress without the time: test ids contain the bytes, and must not vary."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.jsonl", MARK + LINES),
        ("a.jsonl", MARK + LINES[:40] + LINES[40:].replace(b"\n", b"\n" + MARK, 1)),
        ("a.jsonl", LINES.replace(b"\n", b"\r\n")),
        ("a.jsonl", b"\n" + LINES.replace(b"\n", b"\n\n")),
        ("a.jsonl", LINES.rstrip(b"\n")),
        ("a.JSONL", LINES),
        ("a.jsonl.gz", packed(LINES)),
        ("a.jsonl.gz", packed(LINES[:40]) + packed(LINES[40:])),
        ("a.jsonl.bz2", bz2.compress(LINES)),
        ("a.json", ARRAY),
        ("a.json", MARK + b" " + ARRAY),
        ("a.json", LINES),
        ("a.json.gz", packed(ARRAY)),
        ("a.csv", CSV),
        ("a.csv", MARK + CSV.replace(b"\n", b"\r\n")),
        ("a.csv.gz", packed(CSV)),
    ],
)
def test_rows_are_the_same_in_every_file_format(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert list(rows_of_file(tmp_path / name)) == ROWS


def test_zstandard_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    with pyarrow.output_stream(str(path), compression="zstd") as stream:
        stream.write(LINES)
    assert list(rows_of_file(path)) == ROWS


def test_csv_fields_may_contain_line_breaks_and_commas_and_be_long(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f'question,answer\n"a, ""b""\nc",{"x" * 200_000}\n')
    assert list(rows_of_file(tmp_path / "a.csv")) == [
        {"question": 'a, "b"\nc', "answer": "x" * 200_000}
    ]


def errors_of(path: Path) -> dict[int, str]:
    return {
        index: str(row) for index, row in enumerate(rows_of_file(path)) if isinstance(row, RowError)
    }


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("not json", "is not JSON"),
        ("[1]", "is not a JSON object"),
        ('{"question": ' + DEEP + "}", "nested too deeply"),
        ('{"question": "Q", "question"}', "is not JSON"),
        ('{"question": "Q", "question": "R"}', "the name 'question' occurs twice"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_bad_row_affects_no_other_row(bad: str, problem: str, name: str, tmp_path: Path) -> None:
    rows = [json.dumps(ROWS[0]), bad, json.dumps({**ROWS[1], "tricky": 'a "}]", b'})]
    (tmp_path / name).write_text("\n".join(rows) if name == "a.jsonl" else f"[{', '.join(rows)}]")
    rows_read = list(rows_of_file(tmp_path / name))
    assert [isinstance(row, RowError) for row in rows_read] == [False, True, False]
    assert problem in str(rows_read[1])


def test_a_csv_line_of_another_length_affects_no_other_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,answer\nQ0,A0\nQ1\nQ3,A3\n")
    assert errors_of(tmp_path / "a.csv").keys() == {1}
    assert "line 3 has 1 values" in errors_of(tmp_path / "a.csv")[1]


def test_an_unrepresentable_parquet_value_affects_no_other_row(tmp_path: Path) -> None:
    table = pyarrow.table(
        {"question": ["Q0", "Q1"], "when": pyarrow.array([0, 10**15], pyarrow.timestamp("s"))}
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    rows_read = list(rows_of_file(tmp_path / "a.parquet"))
    assert isinstance(rows_read[0], dict)
    assert "a value cannot be read" in str(rows_read[1])


def test_a_bad_first_line_of_json_lines_affects_no_other_row(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"question": \n' + LINES.decode())
    assert errors_of(tmp_path / "a.json").keys() == {0}


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_unused_integers_may_have_any_length(name: str, tmp_path: Path) -> None:
    row = f'{{"question": "Q", "meta": {"9" * 5000}}}'
    (tmp_path / name).write_text(row if name == "a.jsonl" else f"[{row}]")
    (row_read,) = rows_of_file(tmp_path / name)
    assert isinstance(row_read, dict)
    assert str(row_read["meta"]) == "9" * 5000


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ),
        max_size=5,
    )
)
def test_a_broken_array_has_the_elements_of_the_intact_array(values: list[object]) -> None:
    rows = [{"value": value} for value in values]
    broken = json.dumps([*rows, "BAD"]).replace('"BAD"', "bad")
    rows_read = list(json_array(broken))
    assert rows_read[:-1] == rows
    assert isinstance(rows_read[-1], RowError)


@pytest.mark.parametrize(
    ("text", "problem"),
    [('[{"a": 1}', "is incomplete"), ('[{"a": 1}] x', "follows the array"), ("3", "not an array")],
)
def test_an_incomplete_array_is_an_error_of_the_file(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        list(json_array(text))


def test_a_truncated_row_is_a_row_error() -> None:
    assert "is not JSON" in str(parse_row('{"question": "Q"', "line 3 "))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl.gz", packed(LINES)[:-20], "cannot be read"),
        ("a.jsonl.gz", b"plain", "cannot be read"),
        (
            "a.csv",
            b'question,answer\nQ,"open\nQ2,A2\n',
            "line 2: unclosed quote",
        ),
        ("a.csv", b"question,question\n", "the first line repeats a column"),
        ("a.csv", b'question,answer\nQ,"He said "hi" there"\n', "line 2: not CSV"),
        ("a.jsonl", "{}".encode("utf-16"), "UTF-16"),
        ("a.json", b"{\n}", "name a file of JSON lines .jsonl"),
        ("a.parquet", b"PAR1", "not a readable Parquet file"),
    ],
)
def test_unreadable_files_are_named(
    name: str, content: bytes, problem: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}.*{problem}"):
        list(rows_of_file(tmp_path / name))


def test_folders_and_patterns_give_their_files_in_order(tmp_path: Path) -> None:
    for name in (
        "b.jsonl",
        "a.jsonl",
        "sub/c.csv",
        ".hidden.jsonl",
        "README.md",
        "sub/.cache/d.jsonl",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(LINES)
    assert find_files(str(tmp_path)) == [
        tmp_path / name for name in ("a.jsonl", "b.jsonl", "sub/c.csv")
    ]
    assert find_files(str(tmp_path / "*.jsonl")) == [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    assert find_files(str(tmp_path / "**/*.csv")) == [tmp_path / "sub/c.csv"]
    with pytest.raises(InputError, match="no file matches this pattern"):
        find_files(str(tmp_path / "*.parquet"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no data file in this folder"):
        find_files(str(tmp_path / "empty"))


def test_a_file_name_may_look_like_a_pattern(tmp_path: Path) -> None:
    path = tmp_path / "rows[1].jsonl"
    path.write_bytes(LINES)
    assert find_files(str(path)) == [path]


def test_hub_ids_are_not_files() -> None:
    assert not is_file_source("openai/gsm8k")
    assert not is_file_source("HuggingFaceTB/smol-v1.5")
    assert is_file_source("rows.txt")
    assert is_file_source("data/*.jsonl")
