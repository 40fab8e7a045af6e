"""Learning from a teacher's predictions: loss, gradients, soft targets, and refused caches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from cache import open_cache
from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.errors import InputError
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.model import SoftTargets
from pipeline.model.loss import next_token_loss
from pipeline.processes import Share
from pipeline.runs.settings import TrainSettings
from pipeline.teacher.load import load_teacher
from pipeline.teacher.source import find_teacher
from pipeline.training.prepare import prepare_run
from pipeline.training.run import train
from tests.pipeline.short_runs import short_run

Make = Callable[..., ExtractSettings]


@settings(max_examples=30, deadline=None)
@given(
    tokens=st.integers(2, 30),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    vocabulary=st.integers(1, 20),
    chunk=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_loss_and_gradients_equal_cross_entropy_with_mixed_targets(
    tokens: int, share: float, vocabulary: int, chunk: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(2, tokens, 8, generator=generator, requires_grad=True)
    head = torch.randn(20, 8, generator=generator, requires_grad=True)
    rows = torch.randperm(20, generator=generator)[:vocabulary].sort().values
    labels = torch.where(torch.rand(2, tokens, generator=generator) < 0.7, 3, -100)
    labels[:, -1] = 5
    soft = SoftTargets(
        torch.randn(2, tokens, 6, generator=generator),
        torch.randn(vocabulary, 6, generator=generator),
        rows,
        share,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.model.loss._MAX_LOGITS", 20 * chunk)
        total, count = next_token_loss(hidden, head, labels, soft)
    carries = labels[:, 1:] != -100
    logits, targets = (hidden[:, :-1] @ head.T)[carries], labels[:, 1:][carries]
    mixed = torch.zeros(count, 20).scatter_(1, targets[:, None], 1 - share)
    mixed[:, rows] += share * (soft.states[:, :-1][carries] @ soft.head.T).softmax(dim=-1)
    plain = cross_entropy(logits, mixed, reduction="sum")
    torch.testing.assert_close(total, plain, atol=1e-4, rtol=1e-4)
    for gradient, expected in zip(
        torch.autograd.grad(total, (hidden, head)),
        torch.autograd.grad(plain, (hidden, head)),
        strict=True,
    ):
        torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-3)


@pytest.fixture(scope="module")
def cache(embedded_settings: Make) -> Path:
    settings = embedded_settings(keep_head=True)
    extract(prepare(settings))
    return Path(str(settings.cache))


@pytest.mark.parametrize("vocab", ["whole", "dataset"])
@pytest.mark.parametrize(
    ("condition", "layers"), [("none", (-1,)), ("sequence", (0,)), ("sequence", (-1,))]
)
def test_soft_targets_are_the_teachers_predictions(
    condition: str, layers: tuple[int, ...], vocab: str, cache: Path
) -> None:
    options = TrainSettings(
        cache=cache,
        run=Path("unused"),
        condition=condition,
        layers=layers,
        vocab=vocab,
        distill=0.5,
        batch_size=3,
        device="cpu",
    )  # type: ignore[arg-type]
    with open_cache(cache) as opened:
        prepared = prepare_run(opened, options, Share())
        batch = prepared.decoder(next(iter(prepared.validation)))
    assert ("hidden_states" in batch) == (condition == "sequence")
    assert prepared.predictions is not None
    soft = prepared.predictions(batch)["soft_targets"]
    teacher = load_teacher(
        find_teacher(EMBEDDED_TEACHER), [-1], torch.device("cpu"), "fp32", with_lm_head=True
    )
    states = teacher.hidden_states(batch["input_ids"], batch["attention_mask"])[-1]
    expected = teacher.log_probabilities(states[0, :20]).exp()
    head = prepared.model.head_tokens
    tokens = soft.rows if head is None else head[soft.rows]
    targets = (soft.states[0, :20].float() @ soft.head.float().T).softmax(dim=-1)
    # Over the vocabulary of the data set, from states that are stored in bfloat16.
    expected = expected[:, tokens] / expected[:, tokens].sum(dim=-1, keepdim=True)
    torch.testing.assert_close(targets, expected, atol=3e-2, rtol=3e-2)
    assert not torch.allclose(targets, expected.roll(1, dims=0), atol=0.3)


def test_predictions_alone_teach_as_well_as_labels(cache: Path, tmp_path: Path) -> None:
    longer = {"epochs": 6, "bridge_lr": 3e-3, "student_lr": 3e-3, "condition": "none"}
    labels, predictions = (
        train(short_run(cache, tmp_path / str(share), distill=share, **longer)).result
        for share in (0.0, 1.0)
    )
    assert predictions.best_val_loss == pytest.approx(labels.best_val_loss, rel=0.1)
    assert predictions.best_val_loss != labels.best_val_loss
    assert (predictions.steps, predictions.tokens) == (labels.steps, labels.tokens)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"condition": "text"}, "--distill: the teacher predicts its own tokens"),
        ({"new_weights": True}, "--new-weights: --student tiny has new weights already"),
    ],
)
def test_students_without_the_teachers_tokens_are_refused(
    changes: dict[str, object], problem: str, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=problem):
        train(
            TrainSettings(cache=cache, run=tmp_path / "run", distill=0.5, device="cpu", **changes)
        )  # type: ignore[arg-type]


def test_a_cache_without_the_lm_head_or_the_last_layer_is_refused(
    small_cache: Path, embedded_settings: Make, tmp_path: Path
) -> None:
    with pytest.raises(
        InputError, match="lacks the LM head, which --distill needs; extract with --keep-head"
    ):
        train(TrainSettings(cache=small_cache, run=tmp_path / "run", distill=0.5, device="cpu"))
    low = embedded_settings(layers=(0,), keep_head=True)
    extract(prepare(low))
    with pytest.raises(InputError, match="lacks layer -1, which --distill needs"):
        train(
            TrainSettings(
                cache=low.cache, run=tmp_path / "run", layers=(0,), distill=0.5, device="cpu"
            )
        )
