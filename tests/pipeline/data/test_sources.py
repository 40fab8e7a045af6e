"""Data sets from files and the hub: fingerprints, bad rows, groups."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from pipeline.data.forms import FormName
from pipeline.data.sources import load_conversations
from pipeline.errors import InputError
from tests.conftest import write_rows

ROWS = [{"question": f"Q{i}", "answer": f"A{i}"} for i in range(5)]


def test_file_formats_have_the_same_fingerprint(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    sets = [
        load_conversations(str(tmp_path / f"a.{ending}")) for ending in ("jsonl", "json", "parquet")
    ]
    assert len(sets[0].conversations) == 5
    assert len({loaded.fingerprint for loaded in sets}) == 1


def test_the_fingerprint_depends_on_content_not_location(tmp_path: Path) -> None:
    one, two = write_rows(tmp_path / "a.jsonl", ROWS), write_rows(tmp_path / "b.jsonl", ROWS)
    assert load_conversations(str(one)).fingerprint == load_conversations(str(two)).fingerprint
    changed = write_rows(tmp_path / "c.jsonl", [{**ROWS[0], "answer": "other"}, *ROWS[1:]])
    assert load_conversations(str(one)).fingerprint != load_conversations(str(changed)).fingerprint


def test_limit_takes_the_first_rows(tmp_path: Path) -> None:
    conversation_set = load_conversations(str(write_rows(tmp_path / "a.jsonl", ROWS)), limit=2)
    assert [row.row_id for row in conversation_set.conversations] == ["0", "1"]


def test_a_bad_row_is_an_error_with_file_row_and_field(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [ROWS[0], {"question": "Q"}, ROWS[1]])
    with pytest.raises(InputError, match=r"a\.jsonl: row 1: field 'answer' is missing"):
        load_conversations(str(path))


def test_bad_rows_can_be_skipped_and_counted(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [ROWS[0], {"question": "Q"}, ROWS[1]])
    path.write_text(path.read_text() + "not json\n[1]\n")
    conversation_set = load_conversations(str(path), skip_bad_rows=True)
    assert [row.row_id for row in conversation_set.conversations] == ["0", "2"]
    assert conversation_set.malformed == 3


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "empty"),
        ('{"a": 1}\n', r"row 0: columns 'a' fit no known form"),
        ('{"input_ids": [1]}\n', "tokenised rows need input_ids, loss_mask or labels"),
        ("nonsense\n", "row 0: line 1 is not JSON"),
        ("\xff", "row 0"),
    ],
)
def test_unusable_files_are_refused(content: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(InputError, match=problem):
        load_conversations(str(tmp_path / "a.jsonl"))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "rows.txt",
            "question,answer\n",
            r"rows\.txt: not a data file; known endings: \.jsonl",
        ),
        ("rows.json", "['a': 1]", "row 0: is not JSON"),
        ("rows.json", "{'a': 1}", r"rows\.json: not a JSON array of rows; .*\.jsonl"),
        ("rows.json", "[1]", "row 0: is not a JSON object"),
    ],
)
def test_files_of_another_format_are_refused(
    name: str, content: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=problem):
        load_conversations(str(tmp_path / name))


def test_a_bad_row_is_named_by_its_own_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", ROWS)
    write_rows(tmp_path / "b.jsonl", [ROWS[0], {"question": "Q"}])
    with pytest.raises(InputError, match=r"b\.jsonl: row 1: field 'answer'"):
        load_conversations(str(tmp_path))
    conversation_set = load_conversations(str(tmp_path), skip_bad_rows=True)
    assert [row.row_id for row in conversation_set.conversations] == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize("form", [None, "gsm8k"])
def test_the_first_row_may_be_bad(form: FormName | None, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"version": 2}, *ROWS])
    with pytest.raises(InputError, match=r"a\.jsonl: row 0: "):
        load_conversations(str(path), form=form)
    conversation_set = load_conversations(str(path), form=form, skip_bad_rows=True)
    assert (len(conversation_set.conversations), conversation_set.malformed) == (len(ROWS), 1)


def test_an_invalid_byte_affects_only_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'{"question": "Q\xff", "answer": "A"}\n{"question": "Q", "answer": "A", "meta": "\xff"}\n'
    )
    with pytest.raises(
        InputError,
        match=(
            r"row 0: field 'question' is not valid Unicode \(byte 0xff is not UTF-8, at"
            r" character 2"
        ),
    ):
        load_conversations(str(path))
    assert [
        row.row_id for row in load_conversations(str(path), skip_bad_rows=True).conversations
    ] == ["1"]


def test_ignored_columns_are_counted(tmp_path: Path) -> None:
    conversation_set = load_conversations(
        str(
            write_rows(
                tmp_path / "a.jsonl", [{**ROWS[0], "level": 3}, {**ROWS[1], "level": 1, "x": ""}]
            )
        )
    )
    assert conversation_set.unread == {"level": 2}


def test_groups_come_from_a_column(tmp_path: Path) -> None:
    path = str(
        write_rows(tmp_path / "a.jsonl", [{**ROWS[0], "author": "ann"}, {**ROWS[1], "author": 3}])
    )
    conversation_set = load_conversations(path, group_by="author")
    assert [row.group for row in conversation_set.conversations] == ["ann", "3"]
    assert conversation_set.unread == {}
    with pytest.raises(
        InputError, match=r"row 0: field 'writer', the row's group \(--group-by\), is missing"
    ):
        load_conversations(path, group_by="writer")
    for value in ("\ud800", float("nan"), "", [1]):
        bad = write_rows(tmp_path / "b.jsonl", [{**ROWS[0], "author": value}])
        with pytest.raises(InputError, match="row 0: field 'author'"):
            load_conversations(str(bad), group_by="author")


def test_an_unavailable_hub_data_set_is_a_one_line_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr("datasets.load_dataset", fails)
    with pytest.raises(
        InputError,
        match=r"^no-one/nothing: neither a local file nor a data set that the hub provides",
    ) as problem:
        load_conversations("no-one/nothing")
    assert "\n" not in str(problem.value)


def test_rows_from_the_hub_equal_those_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = []

    def load(*what: object, split: str) -> list[dict[str, str]]:
        requests.append((*what, split))
        return ROWS

    monkeypatch.setattr("datasets.load_dataset", load)
    conversation_set = load_conversations("openai/gsm8k", config="main", split="test")
    assert requests == [("openai/gsm8k", "main", "test")]
    assert (
        conversation_set.fingerprint
        == load_conversations(str(write_rows(tmp_path / "a.jsonl", ROWS))).fingerprint
    )


@pytest.mark.parametrize("name", ["nowhere/rows.jsonl", "rows.csv", "rows.jsonl.gz", "rows.txt"])
def test_missing_files_are_not_looked_up_on_the_hub(name: str) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_conversations(name)


def test_binary_garbage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"\x00" * 64)
    with pytest.raises(InputError, match="not a readable Parquet file"):
        load_conversations(str(tmp_path / "a.parquet"))
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-16"):
        load_conversations(str(tmp_path / "a.jsonl"))
