import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from pipeline.data.sources import load_conversations
from pipeline.errors import InputError
from tests.conftest import write_rows

ROWS = [{"question": f"Q{i}", "answer": f"A{i}"} for i in range(5)]


def test_jsonl_json_and_parquet_give_the_same(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    sets = [load_conversations(str(tmp_path / f"a.{ending}")) for ending in ("jsonl", "json", "parquet")]
    assert len(sets[0].conversations) == 5
    assert len({found.fingerprint for found in sets}) == 1


def test_fingerprint_follows_content_and_not_place(tmp_path: Path) -> None:
    one, two = write_rows(tmp_path / "a.jsonl", ROWS), write_rows(tmp_path / "b.jsonl", ROWS)
    assert load_conversations(str(one)).fingerprint == load_conversations(str(two)).fingerprint
    changed = write_rows(tmp_path / "c.jsonl", [{**ROWS[0], "answer": "other"}, *ROWS[1:]])
    assert load_conversations(str(one)).fingerprint != load_conversations(str(changed)).fingerprint


def test_limit_takes_the_first_rows(tmp_path: Path) -> None:
    found = load_conversations(str(write_rows(tmp_path / "a.jsonl", ROWS)), limit=2)
    assert [row.row_id for row in found.conversations] == ["0", "1"]


def test_bad_rows_stop_the_reading_with_file_row_and_field(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [ROWS[0], {"question": "Q"}, ROWS[1]])
    with pytest.raises(InputError, match=r"a\.jsonl: row 1: field 'answer' is missing"):
        load_conversations(str(path))


def test_bad_rows_are_counted_when_asked(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [ROWS[0], {"question": "Q"}, ROWS[1]])
    path.write_text(path.read_text() + "not json\n[1]\n")
    found = load_conversations(str(path), skip_bad_rows=True)
    assert [row.row_id for row in found.conversations] == ["0", "2"]
    assert found.malformed == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "empty"), ('{"a": 1}\n', "fit no known form"), ("nonsense\n", "line 1 is not JSON"), ("\xff", "row 0")],
)
def test_unusable_files_are_said_so(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(InputError, match=said):
        load_conversations(str(tmp_path / "a.jsonl"))


def test_missing_files_are_not_looked_for_on_the_hub() -> None:
    with pytest.raises(InputError, match="no such file"):
        load_conversations("nowhere/rows.jsonl")


def test_binary_nonsense_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"\x00" * 64)
    with pytest.raises(InputError, match="not a Parquet file"):
        load_conversations(str(tmp_path / "a.parquet"))
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        load_conversations(str(tmp_path / "a.jsonl"))
