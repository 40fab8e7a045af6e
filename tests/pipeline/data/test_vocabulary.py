"""Reading of the vocabulary attachment: token ids, and their rows of the LM head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.data.vocabulary import read_lm_head, read_vocabulary, write_vocabulary
from pipeline.errors import InputError


def test_the_attachment_is_read_as_written(tmp_path: Path) -> None:
    head_KD = torch.randn(3, 4)
    write_vocabulary(tmp_path / "v", [1, 5, 7], head_KD)
    assert read_vocabulary(tmp_path / "v") == [1, 5, 7]
    read_KD = read_lm_head(tmp_path / "v")
    assert read_KD is not None
    assert torch.equal(read_KD, head_KD)


def test_an_attachment_without_a_head_has_none(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "v", [1])
    assert read_lm_head(tmp_path / "v") is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "cannot be read"),
        ('{"a": 1}', "not a list of token ids"),
        ("[1, -2]", "not a list of token ids"),
    ],
)
def test_anything_but_a_list_of_token_ids_is_refused(
    content: str, problem: str, tmp_path: Path
) -> None:
    write_vocabulary(tmp_path / "v", [1])
    (path,) = (tmp_path / "v").iterdir()
    path.write_text(content)
    with pytest.raises(InputError, match=problem):
        read_vocabulary(tmp_path / "v")


def test_a_damaged_head_is_refused(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "v", [1], torch.randn(1, 4))
    (path,) = (tmp_path / "v").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="cannot be read"):
        read_lm_head(tmp_path / "v")
