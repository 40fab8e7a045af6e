"""A probe finds the layer that knows the answers, in caches made for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from cache import CacheError, Example, write_cache
from pipeline.data.conversations import Turn
from pipeline.data.transcript import Answer, Transcript
from pipeline.errors import InputError
from pipeline.probe.run import probe
from pipeline.probe.settings import ProbeSettings
from tests.cache.examples import make_attachments, make_content, make_examples, make_manifest

Vector = npt.NDArray[np.float64]
WIDTH = 12
KNOWING, PARTLY, NOISE = 7, 3, 0


def write(
    where: Path,
    answers: Sequence[str],
    known: Callable[[str], Vector],
    later: float = 0.0,
    quoted: Sequence[str] | None = None,
) -> Path:
    """Write a cache of prompts of 3 tokens and answers of 2.

    The last token of each prompt has the states `known(answer)` in layer 7, and in half of the
    examples in layer 3; all else is noise. The states of the answer are all `later`. The prompts
    contain the texts `quoted`.
    """
    rng = np.random.default_rng(0)
    rows, texts = [], []
    for index, answer in enumerate(answers):
        states = {layer: rng.normal(size=(5, WIDTH)) for layer in (NOISE, PARTLY, KNOWING)}
        for layer, share in ((KNOWING, 1.0), (PARTLY, 0.5)):
            if rng.random() < share:
                states[layer][2] = known(answer) + 0.05 * states[layer][2]
        for values in states.values():
            values[3:] = later
        rows.append(
            Example(
                f"row-{index}",
                np.arange(5, dtype=np.int32),
                np.array([False] * 3 + [True] * 2),
                {layer: values.astype(ml_dtypes.bfloat16) for layer, values in states.items()},
            )
        )
        question = f"question {index} {quoted[index] if quoted else ''}"
        turns = (Turn("user", question), Turn("assistant", answer))
        texts.append(Transcript(turns, (Answer(1, 3),)).to_json())
    return write_with_texts(where, rows, texts)


def write_with_texts(where: Path, rows: list[Example], texts: list[str]) -> Path:
    content = replace(make_content(rows), texts=texts)
    with write_cache(where, make_manifest([rows]), make_attachments(where)) as writer:
        writer.publish(0, content)
    return where


def unit_of(answer: str) -> Vector:
    return 3 * np.eye(WIDTH)[len(answer) % WIDTH]


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    answers = ["x" * (index % 6 + 1) for index in range(240)]
    return write(tmp_path_factory.mktemp("probe") / "c", answers, unit_of)


def test_layers_are_ranked_by_right_labels(labels: Path) -> None:
    result = probe(ProbeSettings(cache=labels))
    assert (result.target, result.classes) == ("label", 6)
    assert result.examples == 240
    assert [score.layer for score in result.layers] == [KNOWING, PARTLY, NOISE]
    best, partly, noise = (score.score for score in result.layers)
    assert best > 0.95
    assert 0.3 < partly < 0.85
    assert noise < 0.4
    assert result.baseline == pytest.approx(1 / 6, abs=0.1)


def test_later_tokens_are_not_read(labels: Path, tmp_path: Path) -> None:
    answers = ["x" * (index % 6 + 1) for index in range(240)]
    other = write(tmp_path / "c", answers, unit_of, later=1000.0)
    assert probe(ProbeSettings(cache=other)) == probe(ProbeSettings(cache=labels))


def test_different_answers_are_probed_by_their_words(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(WIDTH)]
    rng = np.random.default_rng(1)
    answers = [
        " ".join([*rng.choice(words, 4, replace=False), f"unique{index}"]) for index in range(240)
    ]

    def present(answer: str) -> Vector:
        return np.array([3.0 * (word in answer.split()) for word in words])

    result = probe(ProbeSettings(cache=write(tmp_path / "c", answers, present)))
    assert (result.target, result.classes) == ("words", WIDTH)
    assert [score.layer for score in result.layers] == [KNOWING, PARTLY, NOISE]
    assert result.layers[0].score > 0.9
    assert result.layers[-1].score < 0.1
    assert abs(result.baseline) < 0.1


def test_words_quoted_from_the_prompt_do_not_count(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    quoted = [f"name{number}" for number in rng.integers(0, 6, 240)]
    verbs = [f"verb{number}" for number in rng.integers(0, WIDTH, 240)]
    answers = [
        f"{verb} {name} unique{index}"
        for index, (verb, name) in enumerate(zip(verbs, quoted, strict=True))
    ]

    def verb_of(answer: str) -> Vector:
        return 3 * np.eye(WIDTH)[int(answer.split()[0].removeprefix("verb"))]

    where = write(tmp_path / "c", answers, verb_of, quoted=quoted)
    result = probe(ProbeSettings(cache=where))
    assert result.classes == WIDTH
    assert result.layers[0].layer == KNOWING
    assert result.layers[0].score > 0.8


def test_a_test_is_scored_by_a_model_of_the_cache(labels: Path, tmp_path: Path) -> None:
    lengths = [index % 6 + 1 for index in range(120)]
    other = write(tmp_path / "other", ["x" * length for length in lengths], unit_of)
    result = probe(ProbeSettings(cache=labels, test=other))
    assert (result.examples, result.tested, result.classes) == (240, 120, 6)
    best = result.layers[0]
    assert best.layer == KNOWING and best.score > 0.95
    assert best.standard_error == pytest.approx((best.score * (1 - best.score) / 120) ** 0.5)
    swapped = ["x" * (length % 6 + 1) for length in lengths]  # states of the label before
    misled = write(
        tmp_path / "misled", swapped, lambda answer: unit_of("x" * ((len(answer) - 2) % 6 + 1))
    )
    result = probe(ProbeSettings(cache=labels, test=misled))
    assert result.layers[-1].layer == KNOWING and result.layers[-1].score < 0.05


def test_the_test_of_another_teacher_is_refused(labels: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    rows = make_examples([4] * 40)
    manifest = make_manifest([rows])
    changed = replace(manifest, identity={**manifest.identity, "teacher_weights": "other"})
    with write_cache(other, changed, make_attachments(other)) as writer:
        writer.publish(0, make_content(rows))
    with pytest.raises(InputError, match=r"--test .*: its teacher_weights differs"):
        probe(ProbeSettings(cache=labels, test=other))


def test_only_some_layers_and_examples_are_probed(labels: Path) -> None:
    result = probe(ProbeSettings(cache=labels, layers=(NOISE,), examples=60, folds=2))
    assert [score.layer for score in result.layers] == [NOISE]
    assert result.examples == 60


def test_impossible_probes_are_refused(labels: Path, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="layer 5 is not cached"):
        probe(ProbeSettings(cache=labels, layers=(5,)))
    with pytest.raises(InputError, match=r"20 examples .* are too few for 30 folds"):
        probe(ProbeSettings(cache=labels, examples=20, folds=30))
    same = write(tmp_path / "same", ["x"] * 40, unit_of)
    with pytest.raises(InputError, match="all answers are alike"):
        probe(ProbeSettings(cache=same))
    rows = make_examples([4] * 40)
    texts = [Transcript((Turn("text", "t"),), ()).to_json()] * 40
    plain = write_with_texts(tmp_path / "plain", rows, texts)
    with pytest.raises(InputError, match="has no prompt with an answer"):
        probe(ProbeSettings(cache=plain))
