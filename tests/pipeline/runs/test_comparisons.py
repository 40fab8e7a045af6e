"""A student's comparison runs: what each changes, and which would be no comparison."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, GPTNeoConfig, GPTNeoForCausalLM

from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.errors import InputError
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.model import LLMModulesForCausalLM
from pipeline.runs.comparisons import (
    BASELINES,
    CONTROLS,
    comparison_settings,
    describe,
    display_order,
    kind_of,
)
from pipeline.runs.folder import RunFolder
from pipeline.runs.settings import TrainSettings
from pipeline.training import run as run_module
from pipeline.training.callbacks import Stopwatch
from pipeline.training.requirements import unfit_comparisons
from pipeline.training.run import train
from tests.conftest import write_rows

STUDENT = TrainSettings(cache=Path("cache"), run=Path("run"), student="some/gpt-neo")
ALL = (*CONTROLS, "layer-12", "random-teacher", *BASELINES)


@pytest.mark.parametrize("name", ALL)
def test_each_changes_what_it_is_named_after_and_nothing_else(name: str) -> None:
    changed = comparison_settings(STUDENT, name, steps=7, random_teacher="random")
    assert (changed.run, changed.patience) == (Path("run/comparisons") / name, 0)
    assert changed.max_steps == (0 if name == "gpt-neo-untouched" else 7)
    kept = set(vars(STUDENT)) - {"run", "max_steps", "patience"}
    differs = {field for field in kept if getattr(changed, field) != getattr(STUDENT, field)}
    assert (
        differs
        == {
            "layer-0": {"layers"},
            "layer-12": {"layers"},
            "no-teacher": {"condition"},
            "random-teacher": {"cache"},
            "gpt-neo-untouched": {"condition"},
            "gpt-neo-fine-tuned": {"condition"},
            "gpt-neo-scratch": {"condition", "new_weights"},
            "distilled": {"condition", "distill"},
            "bidirectional": {"cross_attention"},
        }[name]
    )
    assert describe(name)
    frozen = comparison_settings(
        replace(STUDENT, freeze=("gpt-neo",)), name, steps=7, random_teacher="random"
    ).freeze
    assert frozen == (
        ("gpt-neo",) if changed.condition == "sequence" else ()
    )  # what learns without a teacher learns with all


@pytest.mark.parametrize(
    "changes, name, said",
    [
        ({"condition": "none"}, "layer-0", "--condition none reads no teacher"),
        ({"layers": (0,)}, "layer-0", "would be the student itself"),
        ({"cross_attention": "bidirectional"}, "bidirectional", "would be the student itself"),
        ({"student": "tiny"}, "gpt-neo-fine-tuned", "would be gpt-neo-scratch"),
        ({"new_weights": True}, "gpt-neo-fine-tuned", "would be gpt-neo-scratch"),
        ({"condition": "prompt"}, "gpt-neo-fine-tuned", "would be the control no-teacher"),
        (
            {"condition": "prompt", "student": "tiny"},
            "gpt-neo-scratch",
            "would be the control no-teacher",
        ),
        ({"condition": "prompt"}, "distilled", "this student does not have"),
        ({"condition": "prompt"}, "bidirectional", "nothing can leak"),
        ({"cross_layers": 0}, "bidirectional", "has no cross-attention"),
        ({}, "nobody", "no such comparison run"),
        ({}, "random-teacher", "no such comparison run"),
    ],
)
def test_what_would_be_no_comparison_is_said_so(
    changes: dict[str, Any], name: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        comparison_settings(replace(STUDENT, **changes), name, steps=1)


def test_middle_layers_know_something_so_they_are_no_controls() -> None:
    assert [kind_of(name) for name in ("layer-0", "no-teacher", "random-teacher")] == [
        "control"
    ] * 3
    assert (kind_of("layer-12"), kind_of("distilled")) == ("layer", "baseline")


def test_controls_are_told_of_before_baselines_and_layers_in_their_order() -> None:
    mixed = ["distilled", "layer-12", "random-teacher", "gpt-neo-scratch", "layer-2", "no-teacher"]
    assert sorted(mixed, key=display_order) == [
        "layer-2", "layer-12", "no-teacher", "random-teacher", "gpt-neo-scratch", "distilled",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def gpt_neo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt-neo")
    torch.manual_seed(3)
    config = GPTNeoConfig(
        vocab_size=600, hidden_size=64, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]],
        max_position_embeddings=1024, bos_token_id=2, eos_token_id=2,
    )  # fmt: skip
    GPTNeoForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(EMBEDDED_TEACHER).save_pretrained(folder)
    return folder


def test_untouched_it_is_gpt_neo_and_measured_and_with_new_weights_it_is_not(
    gpt_neo: Path, small_cache: Path, tmp_path: Path
) -> None:
    options = TrainSettings(
        cache=small_cache,
        run=tmp_path / "run",
        student=str(gpt_neo),
        epochs=1,
        batch_size=8,
        device="cpu",
    )
    train(options, comparisons=("gpt-neo-untouched", "gpt-neo-scratch"))
    comparisons = RunFolder(tmp_path / "run").comparisons()
    record = comparisons["gpt-neo-untouched"].read_record()
    assert record.result.steps == record.result.tokens == 0
    assert record.result.best_val_loss > 1
    untouched = LLMModulesForCausalLM.from_pretrained(
        comparisons["gpt-neo-untouched"].model
    ).body.state_dict()
    scratch = LLMModulesForCausalLM.from_pretrained(
        comparisons["gpt-neo-scratch"].model
    ).body.state_dict()
    whole = GPTNeoForCausalLM.from_pretrained(gpt_neo).transformer.state_dict()
    assert all(torch.equal(value, untouched[name]) for name, value in whole.items())
    far = [
        name
        for name, value in whole.items()
        if value.ndim == 2 and not torch.allclose(value, scratch[name], atol=1e-2)
    ]
    assert {name for name, value in whole.items() if value.ndim == 2} == {*far}


def test_a_student_begins_with_what_another_run_has_learned_of_text(
    small_cache: Path, embedded_settings: Any, gpt_neo: Path, tmp_path: Path
) -> None:
    options = TrainSettings(
        cache=small_cache,
        run=tmp_path / "text",
        condition="text",
        epochs=1,
        batch_size=8,
        device="cpu",
    )
    train(options)
    train(
        replace(options, run=tmp_path / "taken", student=str(tmp_path / "text/model")),
        comparisons=(),
    )
    learned = {"bridge_lr": 0.0, "gpt_neo_lr": 0.0, "weight_decay": 0.0, "max_steps": 1}
    for condition in ("sequence", "text", "none"):
        run = tmp_path / f"from-text-{condition}"
        train(
            replace(
                options,
                run=run,
                student=str(tmp_path / "text/model"),
                condition=condition,
                **learned,
            )
        )  # type: ignore[arg-type]
        own, taken = (
            LLMModulesForCausalLM.from_pretrained(each / "model").body.state_dict()
            for each in (tmp_path / "text", run)
        )
        shared = {
            name
            for name in own.keys() & taken.keys()
            if not name.startswith("wte.") or condition == "text"
        }
        assert len(shared) > 20
        assert all(torch.equal(own[name], taken[name]) for name in shared)
    with pytest.raises(InputError, match="reads a teacher, or its LM head"):
        train(
            replace(
                options, run=tmp_path / "no", student=str(tmp_path / "from-text-sequence/model")
            )
        )


def test_what_does_not_fit_beside_a_student_is_told_with_its_reason(
    small_cache: Path, embedded_settings: Any, tmp_path: Path
) -> None:
    tiny = TrainSettings(cache=small_cache, run=tmp_path / "run", device="cpu")
    reasons = unfit_comparisons(tiny, BASELINES)
    assert reasons.keys() == {"gpt-neo-fine-tuned", "distilled"}
    assert "lacks the LM head" in reasons["distilled"]
    assert (
        reasons["gpt-neo-fine-tuned"]
        == "student tiny had new weights, so this would be gpt-neo-scratch"
    )
    with pytest.raises(
        InputError, match="its teacher is not random; extract with --teacher random:SEED:T"
    ):
        train(
            tiny,
            comparisons=("random-teacher",),
            random_teacher=shutil.copytree(small_cache, tmp_path / "copy"),
        )
    assert unfit_comparisons(
        replace(tiny, cross_attention="bidirectional"), ["bidirectional"]
    ).keys() == {"bidirectional"}
    assert (
        unfit_comparisons(
            replace(tiny, freeze=("gpt-neo",)), ["gpt-neo-scratch", "gpt-neo-untouched"]
        )
        == {}
    )
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": "Nobody asks anything here."}] * 3)
    text = embedded_settings(dataset=str(rows), limit=None)
    extract(prepare(text))
    reasons = unfit_comparisons(replace(tiny, cache=text.cache), BASELINES)
    assert all(
        "holds plain text" in reasons[name] for name in ("gpt-neo-untouched", "gpt-neo-scratch")
    )


def test_a_baseline_that_was_stopped_is_not_missed_and_a_control_is(
    small_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TrainSettings(
        cache=small_cache, run=tmp_path / "run", max_steps=1, batch_size=8, device="cpu"
    )
    train(options)
    whole = run_module.train_one

    def stopped(settings: TrainSettings, *given: Any, **named: Any) -> Any:
        if settings.run != options.run:
            raise KeyboardInterrupt
        return whole(settings, *given, **named)

    monkeypatch.setattr(run_module, "train_one", stopped)
    for name in ("bidirectional", "layer-0"):
        with pytest.raises(KeyboardInterrupt):
            train(options, comparisons=(name,), resume=True)
    folder = RunFolder(options.run)
    assert folder.read_record().comparisons == ("layer-0",)
    with pytest.raises(InputError, match="layer-0 is not finished"):
        folder.comparisons()
    monkeypatch.setattr(run_module, "train_one", whole)
    train(options, comparisons=("layer-0", "bidirectional"), resume=True)
    assert list(folder.comparisons()) == ["layer-0", "bidirectional"]


def test_a_stopwatch_goes_on_from_what_its_checkpoint_kept() -> None:
    first: Any = Stopwatch()
    assert first.seconds == 0
    first.on_train_begin(None, None, None)
    first.on_train_end(None, None, None)
    spent = first.seconds
    assert spent > 0 and first.seconds == spent
    second: Any = Stopwatch(**first.state()["args"])
    second.on_train_begin(None, None, None)
    assert second.seconds > spent


def test_too_few_rows_for_a_verdict_are_said_before_training(
    small_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = TrainSettings(cache=small_cache, run=tmp_path / "few", max_steps=1, device="cpu")
    train(settings, comparisons=("layer-0",))
    line = (
        "4 of 40 rows are held out; with fewer than 10 `evaluate` gives no verdict: use more rows,"
        " or --validation 0.25\n"
    )
    assert line in capsys.readouterr().err
    train(replace(settings, run=tmp_path / "enough", validation=0.25), comparisons=("layer-0",))
    train(replace(settings, run=tmp_path / "alone"))
    assert "held out" not in capsys.readouterr().err
