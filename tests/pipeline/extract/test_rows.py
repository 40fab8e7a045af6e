"""Rows of a data set are cached, or left out and counted, or reported."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cache import CacheError, open_cache
from pipeline.errors import InputError
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.runs.rows import describe_groups, rows_of
from pipeline.runs.settings import TrainSettings
from tests.cache.examples import same_example
from tests.conftest import write_rows

Make = Callable[..., ExtractSettings]


def sum_of(number: int) -> dict[str, str]:
    return {"question": f"What is {number} plus 1?", "answer": f"It is {number + 1}"}


def test_tokenised_rows_have_the_states_of_their_text(
    embedded_settings: Make, tmp_path: Path
) -> None:
    words = embedded_settings(
        dataset=str(write_rows(tmp_path / "a.jsonl", [sum_of(number) for number in range(3)]))
    )
    extract(prepare(words))
    with open_cache(words.cache) as of_text:
        rows = [
            {"input_ids": row.input_ids.tolist(), "loss_mask": row.loss_mask.tolist()}
            for row in of_text
        ]
        tokens = embedded_settings(dataset=str(write_rows(tmp_path / "b.jsonl", rows)))
        extract(prepare(tokens))
        with open_cache(tokens.cache) as of_tokens:
            assert all(
                same_example(one, other) for one, other in zip(of_text, of_tokens, strict=True)
            )


def test_tokenised_rows_have_no_prompts(embedded_settings: Make, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"input_ids": [5, 6], "loss_mask": [0, 1]}])
    with pytest.raises(InputError, match="its rows are tokens, and --condition prompt needs turns"):
        prepare(embedded_settings(dataset=str(path), condition="prompt"))


def test_skipped_rows_are_counted_by_reason(embedded_settings: Make, tmp_path: Path) -> None:
    rows = [sum_of(1), {"question": "Q"}, {"question": "<|im_end|>", "answer": "A"}, sum_of(2)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    with pytest.raises(
        InputError, match=r"a\.jsonl: row 1: field 'answer' is missing \(`--skip-bad-rows"
    ):
        prepare(embedded_settings(dataset=str(path)))
    result = extract(prepare(embedded_settings(dataset=str(path), skip_bad_rows=True)))
    assert result.examples == 2
    assert result.left_out == {"malformed": 1, "control tokens in the text": 1}
    assert result.first_left_out["malformed"] == f"{path}: row 1: field 'answer' is missing"
    first = result.first_left_out["control tokens in the text"]
    assert "row 2: the text of turn 0 (user) contains the control token" in first


def test_columns_that_are_not_read_are_reported(embedded_settings: Make, tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "a.jsonl", [{**sum_of(number), "level": number} for number in range(1, 3)]
    )
    settings = embedded_settings(dataset=str(path))
    assert extract(prepare(settings)).unread == {"level": 2}
    with open_cache(settings.cache) as cache:
        assert cache.manifest.provenance["unread"] == {"level": 2}


def test_a_folder_of_compressed_files_has_the_content_of_one_file(
    embedded_settings: Make, tmp_path: Path
) -> None:
    rows = [sum_of(number) for number in range(4)]
    one = embedded_settings(dataset=str(write_rows(tmp_path / "all.jsonl", rows)))
    (tmp_path / "parts").mkdir()
    for part in range(2):
        lines = "".join(json.dumps(row) + "\n" for row in rows[2 * part : 2 * part + 2])
        (tmp_path / "parts" / f"{part}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    many = embedded_settings(dataset=str(tmp_path / "parts"))
    assert extract(prepare(one)).content_digest == extract(prepare(many)).content_digest


def test_copies_and_groups_stay_on_one_side(embedded_settings: Make, tmp_path: Path) -> None:
    rows = [
        {**sum_of(number % 5), "author": "ann" if number in (1, 2) else f"b{number}"}
        for number in range(10)
    ]
    settings = embedded_settings(
        dataset=str(write_rows(tmp_path / "a.jsonl", rows)), group_by="author"
    )
    extract(prepare(settings))
    with open_cache(settings.cache) as cache:
        for seed in range(5):
            run = TrainSettings(
                cache=settings.cache, run=tmp_path / "run", validation=0.4, seed=seed
            )
            train, held_out = rows_of(cache, run)
            assert not {row % 5 for row in train} & {row % 5 for row in held_out}
            anns_and_copies = {1, 2, 6, 7}
            assert anns_and_copies <= set(train) or anns_and_copies <= set(held_out)
        assert describe_groups(cache).startswith(
            "10 of 10 rows are copies of others or share their group; each of the 4 sets"
        )
    with pytest.raises(CacheError, match="group_by was 'author', now it is None"):
        extract(prepare(embedded_settings(dataset=settings.dataset, cache=settings.cache)))


def test_a_cache_of_different_rows_has_no_groups(embedded_settings: Make, tmp_path: Path) -> None:
    settings = embedded_settings(
        dataset=str(write_rows(tmp_path / "a.jsonl", [sum_of(number) for number in range(3)]))
    )
    extract(prepare(settings))
    with open_cache(settings.cache) as cache:
        assert not cache.has_attachment("groups")
        assert describe_groups(cache) == ""
