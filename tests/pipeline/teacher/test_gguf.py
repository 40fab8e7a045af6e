"""A GGUF file as teacher: the same weights give the same states as from a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Qwen2Model

from cache import open_cache
from pipeline.data.tokenizer import load_verified_tokenizer
from pipeline.embedded import EMBEDDED_DATASET
from pipeline.errors import InputError
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.teacher.load import load_teacher
from pipeline.teacher.model import Teacher
from pipeline.teacher.source import find_teacher
from tests.cli_process import run_process
from tests.pipeline.gguf_files import CONFIG, write_gguf


@pytest.fixture(scope="module")
def body() -> Qwen2Model:
    torch.manual_seed(0)
    model = Qwen2Model(CONFIG).eval()
    for weight in model.parameters():  # unlike initial values, to reveal tensors that are not read
        torch.nn.init.normal_(weight, mean=0.5, std=0.2)
    return model


@pytest.fixture(scope="module")
def gguf_file(body: Qwen2Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "teacher.gguf", body)


def test_a_gguf_teacher_gives_the_states_of_the_same_weights(
    gguf_file: Path, body: Qwen2Model
) -> None:
    source = find_teacher(str(gguf_file))
    teacher = load_teacher(source, (-1, 0), torch.device("cpu"), "fp32")
    ids = torch.tensor([[1, 5, 9, 40]])
    expected = Teacher(body, (-1, 0)).hidden_states(ids)
    for layer, states in teacher.hidden_states(ids).items():
        torch.testing.assert_close(states, expected[layer], atol=1e-5, rtol=1e-5)
    assert source.load_tokenizer().eos_token == "<|im_end|>"
    assert source.load_config().num_hidden_layers == 2


def test_a_gguf_teacher_is_extracted_and_trained_from(gguf_file: Path, tmp_path: Path) -> None:
    settings = ExtractSettings(
        teacher=str(gguf_file),
        dataset=EMBEDDED_DATASET,
        cache=tmp_path / "c",
        limit=2,
        max_tokens=4000,
        device="cpu",
        dtype="fp32",
    )
    assert extract(prepare(settings)).examples == 2
    store = open_cache(tmp_path / "c")
    tokenizer = load_verified_tokenizer(store.attachment("tokenizer"), store.identity["tokenizer"])
    assert tokenizer.eos_token_id == store.manifest.end_token_id
    trained = run_process(  # a process without this module's teacher
        *("train", "--cache", tmp_path / "c", "--run", tmp_path / "run"),
        *("--max-steps", 1, "--validation", 0.5, "--device", "cpu"),
    )
    assert trained.returncode == 0, trained.stderr
    assert (
        open_cache(tmp_path / "c").identity["teacher_weights"]
        == find_teacher(str(gguf_file)).weights_hash()
    )


def test_one_file_of_a_split_gguf_is_refused(body: Qwen2Model, tmp_path: Path) -> None:
    part = write_gguf(tmp_path / "small-00001-of-00002.gguf", body, parts=2)
    with pytest.raises(InputError, match=r"it is one part of 2; merge the parts with"):
        prepare(
            ExtractSettings(
                teacher=str(part),
                dataset=EMBEDDED_DATASET,
                cache=tmp_path / "c",
                limit=2,
                device="cpu",
            )
        )
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("less", [1, 500, 50_000, 143_000])
def test_truncated_files_are_refused(less: int, gguf_file: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(gguf_file.read_bytes()[:-less])
    with pytest.raises(InputError, match=r"cut\.gguf.*it is truncated or damaged; copy it again"):
        find_teacher(str(tmp_path / "cut.gguf")).load_config()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("layers.2.mlp.up_proj.weight", r"tensors unexpected: blk\.2\.ffn_up\.weight"),
        ("layers.1.self_attn.o_proj.bias", r"tensors unexpected: blk\.1\.attn_output\.bias"),
        ("layers.0.attn_q_norm.weight", r"tensors unexpected: blk\.0\.attn_q_norm\.weight"),
        ("rope_freqs.weight", None),
    ],
)
def test_unexpected_tensors_are_named(
    name: str, problem: str | None, body: Qwen2Model, tmp_path: Path
) -> None:
    source = find_teacher(
        str(write_gguf(tmp_path / "more.gguf", body, more={name: torch.ones(16)}))
    )
    if problem is None:
        load_teacher(source, (-1,), torch.device("cpu"), "fp32", with_lm_head=True)
    else:
        with pytest.raises(InputError, match=problem):
            load_teacher(source, (-1,), torch.device("cpu"), "fp32")


def test_missing_tensors_are_named(body: Qwen2Model, tmp_path: Path) -> None:
    fewer = write_gguf(tmp_path / "fewer.gguf", body, parts=2)
    fewer.write_bytes(fewer.read_bytes().replace(b"split.count", b"other.count"))
    with pytest.raises(InputError, match=r"tensors missing: .*layers\.1\."):
        load_teacher(find_teacher(str(fewer)), (-1,), torch.device("cpu"), "fp32")


def test_a_damaged_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(InputError, match=r"broken\.gguf"):
        find_teacher(str(tmp_path / "broken.gguf")).load_config()
