"""Learning from a teacher's predictions: the loss that is written, its gradients, and no teacher in
memory."""

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

Make = Callable[..., ExtractSettings]


@settings(max_examples=30, deadline=None)
@given(
    tokens=st.integers(2, 30), share=st.sampled_from([0.0, 0.3, 1.0]), known=st.integers(1, 20), chunk=st.integers(1, 9),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_the_loss_with_soft_targets_and_its_gradients_are_the_plain_ones(
    tokens: int, share: float, known: int, chunk: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(2, tokens, 8, generator=generator, requires_grad=True)
    head = torch.randn(20, 8, generator=generator, requires_grad=True)
    rows = torch.randperm(20, generator=generator)[:known].sort().values
    labels = torch.where(torch.rand(2, tokens, generator=generator) < 0.7, 3, -100)
    labels[:, -1] = 5
    soft = SoftTargets(
        torch.randn(2, tokens, 6, generator=generator),
        torch.randn(known, 6, generator=generator),
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
    for found, expected in zip(
        torch.autograd.grad(total, (hidden, head)),
        torch.autograd.grad(plain, (hidden, head)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@pytest.fixture(scope="module")
def cache(embedded_settings: Make) -> Path:
    prepared = embedded_settings(keep_head=True)
    extract(prepare(prepared))
    return Path(str(prepared.cache))


@pytest.mark.parametrize("vocab", ["whole", "dataset"])
@pytest.mark.parametrize(
    "condition, layers", [("none", (-1,)), ("sequence", (0,)), ("sequence", (-1,))]
)
def test_the_soft_targets_are_what_the_teacher_predicts(
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
    said = (soft.states[0, :20].float() @ soft.head.float().T).softmax(dim=-1)
    among_those = expected[:, tokens] / expected[:, tokens].sum(
        dim=-1, keepdim=True
    )  # the tokens that occur
    torch.testing.assert_close(
        said, among_those, atol=3e-2, rtol=3e-2
    )  # states are stored in bfloat16
    assert not torch.allclose(said, among_those.roll(1, dims=0), atol=0.3)


def test_a_student_learns_the_teachers_predictions_and_lacks_the_teacher(
    cache: Path, tmp_path: Path
) -> None:
    options = {"epochs": 6, "batch_size": 8, "bridge_lr": 3e-3, "gpt_neo_lr": 3e-3, "device": "cpu"}
    plain, soft = (
        train(
            TrainSettings(
                cache=cache, run=tmp_path / str(share), condition="none", distill=share, **options
            )
        )  # type: ignore[arg-type]
        for share in (0.0, 1.0)
    )
    assert soft.result.best_val_loss == pytest.approx(plain.result.best_val_loss, rel=0.1)
    assert soft.result.best_val_loss != plain.result.best_val_loss
    assert (soft.result.steps, soft.result.tokens) == (
        plain.result.steps,
        plain.result.tokens,
    )


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"condition": "text"}, "--distill: the teacher predicts its own tokens"),
        ({"new_weights": True}, "--new-weights: those of --student tiny are new already"),
    ],
)
def test_what_cannot_be_learned_so_is_said(
    changes: dict[str, object], said: str, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        train(
            TrainSettings(cache=cache, run=tmp_path / "run", distill=0.5, device="cpu", **changes)
        )  # type: ignore[arg-type]


def test_a_cache_without_the_head_or_its_states_cannot_be_learned_from(
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
