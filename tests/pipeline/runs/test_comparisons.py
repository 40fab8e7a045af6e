"""Comparison runs differ from their student in one respect, seen in batches and first weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cache import open_cache
from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.errors import InputError
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.processes import Share
from pipeline.runs.comparisons import (
    BASELINES,
    CONTROLS,
    comparison_folder,
    comparison_settings,
    describe,
    display_order,
    kind_of,
)
from pipeline.runs.folder import RunFolder
from pipeline.runs.record import RunRecord
from pipeline.runs.settings import TrainSettings
from pipeline.training.prepare import prepare_run
from tests.pipeline.short_runs import short_run

STUDENT = TrainSettings(cache=Path("cache"), run=Path("run"), student="some/gpt-neo")
NAMES = (*CONTROLS, "layer-12", "random-teacher", *BASELINES)
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Start:
    """What a run begins with.

    Attributes:
        batches: of the first epoch, decoded.
        weights: of the student, by name.
        trainable: the parts with trainable weights, such as `body`.
        soft_targets: whether the teacher's predictions are learned.
    """

    batches: list[Batch]
    weights: Batch
    trainable: set[str]
    leaks: bool
    soft_targets: bool

    @property
    def inputs(self) -> list[list[list[int]]]:
        """Token ids of all batches."""
        return [batch["input_ids"].tolist() for batch in self.batches]

    @property
    def states(self) -> torch.Tensor:
        """Hidden states of all examples, padding included."""
        return torch.cat([batch["hidden_states"].flatten(0, 1) for batch in self.batches])


@pytest.fixture(scope="module")
def caches(embedded_settings: Callable[..., ExtractSettings]) -> tuple[Path, Path]:
    """Return caches of the teacher and of one with random weights."""
    trained = embedded_settings(limit=20, keep_head=True, layers=(-1, 0, 2))
    random = embedded_settings(limit=20, layers=(-1,), teacher=f"random:3:{EMBEDDED_TEACHER}")
    for settings in (trained, random):
        extract(prepare(settings))
    return Path(str(trained.cache)), Path(str(random.cache))


@pytest.fixture(scope="module")
def start(
    caches: tuple[Path, Path], byte_gpt_neo: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Start]:
    """Return a function that prepares a student, or its comparison run of a name."""
    run = tmp_path_factory.mktemp("runs") / "run"
    student = short_run(caches[0], run, student=str(byte_gpt_neo), validation=0.2)

    def prepared(name: str = "student", **changes: Any) -> Start:
        settings = replace(student, **changes)
        if name != "student":
            settings = comparison_settings(settings, name, steps=7, random_teacher=caches[1])
        with open_cache(settings.cache) as cache:
            ready = prepare_run(cache, settings, Share())
            batches = [ready.decoder(batch) for batch in ready.training]
        parameters = dict(ready.model.named_parameters())
        return Start(
            batches,
            ready.model.state_dict(),
            {name.split(".")[0] for name, weight in parameters.items() if weight.requires_grad},
            ready.model.config.leaks,
            ready.predictions is not None,
        )

    return prepared


@pytest.mark.parametrize("name", ["layer-0", "layer-2", "random-teacher"])
def test_a_run_on_other_states_has_the_same_tokens_and_first_weights(
    name: str, start: Callable[..., Start]
) -> None:
    student, other = start(), start(name)
    assert other.inputs == student.inputs
    assert not torch.allclose(other.states, student.states, atol=0.1)
    assert all(torch.equal(other.weights[key], student.weights[key]) for key in student.weights)
    if name != "random-teacher":
        layer = int(name.removeprefix("layer-"))
        assert torch.equal(other.states, start(layers=(layer,)).states)


@pytest.mark.parametrize("name", ["no-teacher", "distilled"])
def test_a_run_without_the_teachers_states_has_the_same_tokens_and_loss_mask(
    name: str, start: Callable[..., Start]
) -> None:
    student, other = start(), start(name)
    assert other.inputs == student.inputs
    for batch, own in zip(other.batches, student.batches, strict=True):
        assert torch.equal(batch["labels"], own["labels"])
    assert not any(key.startswith("bridge.") for key in other.weights)
    assert other.soft_targets == (name == "distilled")


def test_bidirectional_attention_is_the_only_difference_of_its_run(
    start: Callable[..., Start],
) -> None:
    student, other = start(), start("bidirectional")
    assert (student.leaks, other.leaks) == (False, True)
    assert other.inputs == student.inputs
    assert torch.equal(other.states, student.states)
    assert all(torch.equal(other.weights[key], student.weights[key]) for key in student.weights)


def test_baselines_of_gpt_neo_read_their_own_tokens_and_scratch_has_new_weights(
    start: Callable[..., Start],
) -> None:
    tuned, untouched, scratch = (start(name) for name in ("fine-tuned", "untouched", "scratch"))
    assert tuned.inputs == untouched.inputs == scratch.inputs != start().inputs
    name = "body.h.0.mlp.c_fc.weight"
    assert torch.equal(tuned.weights[name], start().weights[name])
    assert torch.equal(tuned.weights[name], untouched.weights[name])
    assert not torch.allclose(tuned.weights[name], scratch.weights[name], atol=0.01)


@pytest.mark.parametrize("name", ["layer-0", "no-teacher", "distilled", "fine-tuned"])
def test_only_runs_that_read_states_keep_parts_frozen(
    name: str, start: Callable[..., Start]
) -> None:
    trainable = start(name, freeze=("student",)).trainable
    assert ("body" in trainable) == (name != "layer-0")


@pytest.mark.parametrize("name", NAMES)
def test_a_comparison_run_has_its_own_folder_and_no_early_stopping(name: str) -> None:
    settings = comparison_settings(STUDENT, name, steps=7, random_teacher="random")
    assert settings.run == Path("run/comparisons") / name
    assert settings.patience == 0
    assert settings.max_steps == (0 if name == "untouched" else 7)
    assert (settings.seed, settings.validation) == (STUDENT.seed, STUDENT.validation)


@pytest.mark.parametrize(
    ("changes", "name", "problem"),
    [
        ({"condition": "none"}, "layer-0", "--condition none reads no teacher"),
        ({"layers": (0,)}, "layer-0", "would be the student itself"),
        ({"cross_attention": "bidirectional"}, "bidirectional", "would be the student itself"),
        ({"student": "tiny"}, "fine-tuned", "would be scratch"),
        ({"new_weights": True}, "fine-tuned", "would be scratch"),
        ({"condition": "prompt"}, "fine-tuned", "would be the control no-teacher"),
        (
            {"condition": "prompt", "student": "tiny"},
            "scratch",
            "would be the control no-teacher",
        ),
        ({"condition": "prompt"}, "distilled", "this student does not have"),
        ({"condition": "prompt"}, "bidirectional", "nothing can leak"),
        ({"cross_layers": 0}, "bidirectional", "has no cross-attention"),
        ({}, "nobody", "no such comparison run"),
        ({}, "random-teacher", "no such comparison run"),
    ],
)
def test_runs_that_compare_nothing_are_refused(
    changes: dict[str, Any], name: str, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        comparison_settings(replace(STUDENT, **changes), name, steps=1)


def test_layers_above_the_embeddings_are_no_controls() -> None:
    names = ("layer-0", "no-teacher", "random-teacher", "layer-12", "distilled")
    assert [kind_of(name) for name in names] == ["control"] * 3 + ["layer", "baseline"]


def test_layers_are_shown_before_other_controls_and_baselines() -> None:
    names = ["distilled", "layer-12", "random-teacher", "scratch", "layer-2", "no-teacher"]
    assert sorted(names, key=display_order) == [
        *("layer-2", "layer-12", "no-teacher", "random-teacher", "scratch", "distilled")
    ]


def test_every_run_has_its_own_description() -> None:
    assert len({describe(name) for name in ("student", "teacher", *NAMES)}) == len(NAMES) + 2
    assert describe("layer-12") == "the teacher's layer 12"


def test_names_of_release_0_1_are_read(tmp_path: Path) -> None:
    assert comparison_folder(tmp_path, "scratch") == tmp_path / "comparisons" / "scratch"
    earlier = tmp_path / "comparisons" / "gpt-neo-scratch"
    earlier.mkdir(parents=True)
    assert comparison_folder(tmp_path, "scratch") == earlier
    assert comparison_folder(tmp_path, "untouched") == tmp_path / "comparisons" / "untouched"
    settings = EvaluateSettings(run=tmp_path, baselines=("gpt-neo-scratch", "scratch", "teacher"))
    assert settings.named_baselines == ["scratch"]
    settings.require_sense()


def test_a_record_of_release_0_1_names_its_baselines_as_now(trained_run: Path) -> None:
    content = RunFolder(trained_run).read_record().to_json()
    content["comparisons"] = ["gpt-neo-fine-tuned", "layer-0"]
    assert RunRecord.from_json(content).comparisons == ("fine-tuned", "layer-0")
