"""A worker's teacher, and the input that is sent to it."""

from __future__ import annotations

import pickle
from collections.abc import Callable

from pipeline.extract.prepare import prepare
from pipeline.extract.settings import ExtractSettings
from pipeline.extract.worker import ShardWorker

Make = Callable[..., ExtractSettings]


def test_the_lm_head_is_loaded_after_a_teacher_without_it(embedded_settings: Make) -> None:
    plan = prepare(embedded_settings(limit=8))
    worker = ShardWorker(plan.work())
    before = worker.read(0, ())
    assert not worker.load().has_lm_head
    assert worker.load(with_lm_head=True).has_lm_head
    assert worker.read(0, ()).segments[-1].hidden_states[-1].tobytes() == (
        before.segments[-1].hidden_states[-1].tobytes()
    )


def test_calibration_for_a_kl_divergence_follows_a_read(embedded_settings: Make) -> None:
    settings = embedded_settings(
        limit=20, codec=("-1:klt",), fidelity=("-1:kl=0.05",), calibration_tokens=1000
    )
    worker = ShardWorker(prepare(settings).work())
    worker.read(0, ())
    assert worker.calibrate()[-1].settings["found"]["kl"] <= 0.05


def test_workers_get_tokens_and_neither_tokenizer_nor_settings(embedded_settings: Make) -> None:
    plan = prepare(embedded_settings(limit=20))
    sent = pickle.dumps(plan.work())
    for name in (b"ExtractSettings", b"Tokenizer", b"Manifest"):
        assert name not in sent
    tokens = sum(example.input_ids.nbytes for example in plan.dataset.examples)
    texts = sum(len(example.text.encode()) for example in plan.dataset.examples)
    assert len(sent) < 3 * (tokens + texts) + 10_000
