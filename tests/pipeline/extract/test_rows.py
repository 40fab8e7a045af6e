"""What becomes of the rows of a data set: in the cache, left out and counted, or named."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cache import CacheError, open_cache
from pipeline.errors import InputError
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.runs.rows import describe_groups, rows_of
from pipeline.runs.settings import TrainSettings
from tests.conftest import write_rows

Settings = Callable[..., ExtractSettings]


def sum_of(number: int) -> dict[str, str]:
    return {"question": f"What is {number} plus 1?", "answer": f"It is {number + 1}"}


def test_rows_of_tokens_give_the_states_of_the_rows_they_were_made_from(
    embedded_settings: Settings, tmp_path: Path
) -> None:
    words = embedded_settings(
        dataset=str(write_rows(tmp_path / "a.jsonl", [sum_of(number) for number in range(3)]))
    )
    extract(prepare(words))
    with open_cache(words.cache) as made:
        rows = [
            {"input_ids": row.input_ids.tolist(), "loss_mask": row.loss_mask.tolist()}
            for row in made
        ]
        tokens = embedded_settings(dataset=str(write_rows(tmp_path / "b.jsonl", rows)))
        extract(prepare(tokens))
        with open_cache(tokens.cache) as found:
            for one, two in zip(made, found, strict=True):
                assert one.input_ids.tolist() == two.input_ids.tolist()
                assert one.loss_mask.tolist() == two.loss_mask.tolist()
                assert all(
                    np.array_equal(one.hidden_states[layer], two.hidden_states[layer])
                    for layer in one.hidden_states
                )


def test_tokens_have_no_prompts(embedded_settings: Settings, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"input_ids": [5, 6], "loss_mask": [0, 1]}])
    with pytest.raises(InputError, match="its rows are tokens, and --condition prompt needs turns"):
        prepare(embedded_settings(dataset=str(path), condition="prompt"))


def test_skipped_rows_are_counted_by_their_fault(
    embedded_settings: Settings, tmp_path: Path
) -> None:
    rows = [sum_of(1), {"question": "Q"}, {"question": "<|im_end|>", "answer": "A"}, sum_of(2)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    with pytest.raises(
        InputError, match=r"a\.jsonl: row 1: field 'answer' is missing \(`extract --skip-bad-rows"
    ):
        prepare(embedded_settings(dataset=str(path)))
    result = extract(prepare(embedded_settings(dataset=str(path), skip_bad_rows=True)))
    assert (result.examples, result.left_out) == (
        2,
        {"malformed": 1, "control tokens in the text": 1},
    )
    assert result.first_left_out["malformed"] == f"{path}: row 1: field 'answer' is missing"
    assert (
        "row 2: the text of turn 0 (user) contains the control token"
        in result.first_left_out["control tokens in the text"]
    )


def test_what_is_not_read_is_reported(embedded_settings: Settings, tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "a.jsonl", [{**sum_of(number), "level": number} for number in range(1, 3)]
    )
    settings = embedded_settings(dataset=str(path))
    assert extract(prepare(settings)).unread == {"level": 2}
    with open_cache(settings.cache) as cache:
        assert cache.manifest.provenance["unread"] == {"level": 2}


def test_a_folder_of_packed_files_is_the_data_set_of_their_rows(
    embedded_settings: Settings, tmp_path: Path
) -> None:
    rows = [sum_of(number) for number in range(4)]
    one = embedded_settings(dataset=str(write_rows(tmp_path / "all.jsonl", rows)))
    (tmp_path / "parts").mkdir()
    for part in range(2):
        lines = "".join(json.dumps(row) + "\n" for row in rows[2 * part : 2 * part + 2])
        (tmp_path / "parts" / f"{part}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    many = embedded_settings(dataset=str(tmp_path / "parts"))
    assert extract(prepare(one)).content_digest == extract(prepare(many)).content_digest


def test_copies_and_groups_stay_on_one_side(embedded_settings: Settings, tmp_path: Path) -> None:
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
            train, held_out = rows_of(
                cache,
                TrainSettings(
                    cache=settings.cache, run=tmp_path / "run", validation=0.4, seed=seed
                ),
            )
            assert not {row % 5 for row in train} & {row % 5 for row in held_out}
            assert (
                len(
                    {row % 5 in (1, 2) for row in train if row % 5 in (1, 2)}
                    & {row % 5 in (1, 2) for row in held_out}
                )
                <= 1
            )
            assert all(
                ({1, 2, 6, 7} <= set(side)) or not ({1, 2, 6, 7} & set(side))
                for side in (train, held_out)
            )
        assert describe_groups(cache).startswith(
            "10 of 10 rows are copies of others or share their group; each of the 4 sets"
        )
    with pytest.raises(CacheError, match="group_by was 'author', now it is None"):
        extract(prepare(embedded_settings(dataset=settings.dataset, cache=settings.cache)))


def test_rows_that_stand_alone_need_no_groups(embedded_settings: Settings, tmp_path: Path) -> None:
    settings = embedded_settings(
        dataset=str(write_rows(tmp_path / "a.jsonl", [sum_of(number) for number in range(3)]))
    )
    extract(prepare(settings))
    with open_cache(settings.cache) as cache:
        assert not cache.has_attachment("groups")
        assert describe_groups(cache) == ""
