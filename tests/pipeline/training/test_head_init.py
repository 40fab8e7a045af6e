"""The reduced LM head of the teacher is the best one of its rank, and initialises a student."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import open_cache
from pipeline.data.vocabulary import VOCABULARY, read_lm_head, read_vocabulary
from pipeline.errors import InputError
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.processes import Share
from pipeline.runs.settings import TrainSettings
from pipeline.training.head_init import reduced_head
from pipeline.training.prepare import prepare_run

Make = Callable[..., ExtractSettings]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), width=st.integers(1, 12))
def test_the_reduced_head_has_the_least_error_of_its_rank(seed: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    head_KD = torch.randn(30, 8, generator=generator)
    states_ND = (
        torch.randn(200, 8, generator=generator) @ torch.randn(8, 8, generator=generator) + 1
    )
    reduced_KS = reduced_head(head_KD, states_ND, width)
    logits_NK = states_ND @ (head_KD - head_KD.mean(dim=0)).T

    def error(reduced: torch.Tensor) -> float:
        """Return the squared error of the logits with the best states for a head."""
        best_NS = logits_NK @ torch.linalg.pinv(reduced).T
        return float((logits_NK - best_NS @ reduced.T).pow(2).sum())

    least = float(torch.linalg.svdvals(logits_NK.double())[width:].pow(2).sum())
    assert error(reduced_KS) == pytest.approx(
        least, rel=1e-3, abs=1e-3 * float(logits_NK.pow(2).sum())
    )
    best_NS = logits_NK @ torch.linalg.pinv(reduced_KS).T
    moment = (best_NS.T @ best_NS / len(best_NS))[: min(width, 8), : min(width, 8)]
    # White, like the output of GPT-Neo's last LayerNorm.
    torch.testing.assert_close(moment, torch.eye(len(moment)), atol=2e-2, rtol=0)


@pytest.mark.parametrize("vocab", ["whole", "dataset"])
def test_rows_of_the_vocabulary_start_as_the_teachers_and_others_at_random(
    vocab: str, embedded_settings: Make, tmp_path: Path
) -> None:
    settings = embedded_settings(cache=tmp_path / "cache", keep_head=True)
    extract(prepare(settings))
    with open_cache(settings.cache) as cache:
        tokens = read_vocabulary(cache.attachment(VOCABULARY))
        kept = read_lm_head(cache.attachment(VOCABULARY))
        assert kept is not None
        assert kept.shape == (len(tokens), cache.hidden_size)
        run = TrainSettings(
            cache=settings.cache,
            run=tmp_path / "run",
            device="cpu",
            vocab=vocab,
            head_init="teacher",
        )  # type: ignore[arg-type]
        initial = prepare_run(cache, run, Share()).model.lm_head.weight.detach()
        random = prepare_run(
            cache,
            TrainSettings(cache=settings.cache, run=tmp_path / "run", device="cpu", vocab=vocab),
            Share(),
        )  # type: ignore[arg-type]
        states = torch.cat([torch.from_numpy(e.hidden_states[-1].astype("float32")) for e in cache])
    rows = initial if vocab == "dataset" else initial[tokens]
    logits_NK = states @ (kept.float() - kept.float().mean(dim=0)).T
    error_NK = logits_NK - logits_NK @ torch.linalg.pinv(rows).T @ rows.T
    assert float(error_NK.norm() / logits_NK.norm()) < 0.2
    if vocab == "whole":
        others = torch.ones(len(initial), dtype=torch.bool)
        others[tokens] = False
        assert torch.equal(initial[others], random.model.lm_head.weight.detach()[others])


def test_a_cache_without_the_head_is_refused(small_cache: Path, tmp_path: Path) -> None:
    with (
        open_cache(small_cache) as cache,
        pytest.raises(InputError, match="extract with --keep-head"),
    ):
        prepare_run(
            cache,
            TrainSettings(
                cache=small_cache, run=tmp_path / "run", device="cpu", head_init="teacher"
            ),
            Share(),
        )


def test_an_encoder_has_no_head_to_keep(embedded_settings: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an encoder has no LM head"):
        prepare(embedded_settings(cache=tmp_path / "cache", keep_head=True, teacher_kind="encoder"))
