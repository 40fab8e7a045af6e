"""Probe the layers of a cache: a linear model per layer, scored on other examples."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache import Cache, open_cache
from pipeline.data.groups import groups_of
from pipeline.errors import InputError
from pipeline.probe.features import ProbeExamples, joined, read_examples
from pipeline.probe.settings import ProbeSettings
from pipeline.probe.targets import Targets, targets_of
from pipeline.progress import NO_PROGRESS, Progress

_STRENGTHS = tuple(10.0**power for power in range(7))
"""Regularisation strengths to choose from, by leave-one-out validation of the training folds."""

Indices = npt.NDArray[np.intp]
Split = tuple[Indices, Indices]


@dataclass(frozen=True)
class LayerScore:
    """The score of one layer on examples that the linear model was not fitted to.

    Attributes:
        layer: of the cache.
        score: share of right labels; or, for words, share of their variance that is explained.
        standard_error: of the score, over the folds, or over the labels of a test; None for the
            words of a test.
    """

    layer: int
    score: float
    standard_error: float | None


@dataclass(frozen=True)
class ProbeResult:
    """The layers of a cache, best first.

    Attributes:
        target: `label` or `words`.
        classes: number of labels or words.
        examples: number of examples to learn from.
        tested: number of examples of the test; None if the scores are cross-validated.
        baseline: score of the most frequent label, or of the mean.
        layers: their scores.
    """

    target: str
    classes: int
    examples: int
    tested: int | None
    baseline: float
    layers: list[LayerScore]


def probe(settings: ProbeSettings, progress: Progress = NO_PROGRESS) -> ProbeResult:
    """Probe a cache as the settings say.

    Raises:
        CacheError: a cache is not complete, or lacks a layer.
        InputError: its examples have no answers, or are too few, or the test is of another teacher.
    """
    with open_cache(settings.cache) as cache:
        if settings.test is None:
            return probe_rows(cache, range(len(cache)), settings, progress)
        with open_cache(settings.test) as test:
            return _probe_with_test(cache, test, settings, progress)


def probe_rows(
    cache: Cache,
    rows: Sequence[int],
    settings: ProbeSettings,
    progress: Progress = NO_PROGRESS,
) -> ProbeResult:
    """Probe some rows of an open cache by cross-validation; groups of rows stay in one fold.

    Args:
        cache: to read from.
        rows: indices of the examples to choose from.
        settings: of the probe.
        progress: counts examples and layers.

    Raises:
        CacheError: the cache lacks a layer.
        InputError: the examples have no answers, or are too few.
    """
    from sklearn.model_selection import GroupKFold

    indices = _chosen(rows, settings)
    folds, numbers = settings.folds, groups_of(cache)
    groups = [str(numbers.get(cache.row_ids[i], cache.row_ids[i])) for i in indices]
    if len(set(groups)) < folds:
        raise InputError(
            f"{cache.address}: {len(set(groups))} examples or groups of examples are too few for"
            f" {folds} folds; a probe needs more"
        )
    examples = read_examples(cache, indices, _layers(cache, settings), progress)
    splits = GroupKFold(folds, shuffle=True, random_state=settings.seed).split(
        indices, groups=groups
    )
    return _ranked(cache, examples, list(splits), None, progress)


def _probe_with_test(
    cache: Cache, test: Cache, settings: ProbeSettings, progress: Progress
) -> ProbeResult:
    """Fit to one cache, and score on another."""
    for field in ("teacher_weights", "template"):
        if cache.identity.get(field) != test.identity.get(field):
            raise InputError(
                f"--test {test.address}: its {field} differs from that of {cache.address}; extract"
                " both with the same teacher and template"
            )
    layers = _layers(cache, settings)
    training = read_examples(cache, _chosen(range(len(cache)), settings), layers, progress)
    tested = read_examples(test, range(len(test)), layers, progress)
    count, total = len(training.answers), len(training.answers) + len(tested.answers)
    split = (np.arange(count), np.arange(count, total))
    return _ranked(cache, joined(training, tested), [split], len(tested.answers), progress)


def _chosen(rows: Sequence[int], settings: ProbeSettings) -> list[int]:
    count = min(settings.examples, len(rows))
    return sorted(random.Random(settings.seed).sample(rows, count))


def _layers(cache: Cache, settings: ProbeSettings) -> Sequence[int]:
    return cache.layers if settings.layers is None else settings.layers


def _ranked(
    cache: Cache,
    examples: ProbeExamples,
    splits: list[Split],
    tested: int | None,
    progress: Progress,
) -> ProbeResult:
    """Return the scores of all layers of some examples.

    Args:
        cache: for messages.
        examples: to fit and score.
        splits: indices of the examples to fit, and of those to score.
        tested: as in the result.
        progress: counts layers.
    """
    targets = targets_of(examples.answers, examples.prompts)
    if targets.classes < 2:
        raise InputError(
            f"{cache.address}: all answers are alike, or only quote their prompts, so there is"
            " nothing to probe"
        )
    progress.stage("probe", len(examples.features))
    scores = []
    for layer, features_ND in examples.features.items():
        scores.append(_score(layer, features_ND, targets, splits))
        progress.advance()
    return ProbeResult(
        target="label" if targets.are_labels else "words",
        classes=targets.classes,
        examples=len(examples.answers) - (tested or 0),
        tested=tested,
        baseline=float(np.mean([_baseline(targets, *split) for split in splits])),
        layers=sorted(scores, key=lambda score: -score.score),
    )


def _score(
    layer: int, features_ND: npt.NDArray[np.float32], targets: Targets, splits: list[Split]
) -> LayerScore:
    from sklearn.linear_model import RidgeClassifierCV, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kind = RidgeClassifierCV if targets.are_labels else RidgeCV
    scores = []
    for training, held_out in splits:
        model = make_pipeline(StandardScaler(), kind(alphas=_STRENGTHS))
        model.fit(features_ND[training], targets.values[training])
        scores.append(_scored(targets, held_out, model.predict(features_ND[held_out])))
    mean, error = float(np.mean(scores)), None
    if len(splits) > 1:
        error = float(np.std(scores, ddof=1) / np.sqrt(len(scores)))
    elif targets.are_labels:
        error = float(np.sqrt(mean * (1 - mean) / len(splits[0][1])))
    return LayerScore(layer, mean, error)


def _scored(targets: Targets, rows: Indices, predicted: npt.NDArray[Any]) -> float:
    actual = targets.values[rows]
    if targets.are_labels:
        return float((predicted == actual).mean())
    variance = ((actual - targets.values.mean(axis=0)) ** 2).sum()
    return float(1 - ((predicted - actual) ** 2).sum() / variance)


def _baseline(targets: Targets, training: Indices, held_out: Indices) -> float:
    if not targets.are_labels:
        mean = targets.values[training].mean(axis=0)
        return _scored(targets, held_out, np.broadcast_to(mean, (len(held_out), len(mean))))
    most_frequent = np.bincount(targets.values[training]).argmax()
    return _scored(targets, held_out, np.full(len(held_out), most_frequent))
