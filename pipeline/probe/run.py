"""Probe the layers of a cache: fit a linear model per layer, and score it on held-out examples."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache import Cache, open_cache
from pipeline.data.groups import groups_of
from pipeline.data.split import split_rows
from pipeline.errors import InputError
from pipeline.probe.features import read_examples
from pipeline.probe.settings import ProbeSettings
from pipeline.probe.targets import Targets, targets_of
from pipeline.progress import NO_PROGRESS, Progress

_STRENGTHS = tuple(10.0**power for power in range(7))
"""Regularisation strengths to choose from, by leave-one-out validation on the training share."""


@dataclass(frozen=True)
class LayerScore:
    """The score of one layer on held-out examples.

    Attributes:
        layer: of the cache.
        score: share of right labels; or, for words, share of their variance that is explained.
        training_score: the same on the examples that the probe was fitted to.
    """

    layer: int
    score: float
    training_score: float


@dataclass(frozen=True)
class ProbeResult:
    """The layers of a cache, best first.

    Attributes:
        target: `label` or `words`.
        classes: number of labels or words.
        training, held_out: numbers of examples.
        baseline: score of the most frequent label, or of the mean.
        layers: their scores.
    """

    target: str
    classes: int
    training: int
    held_out: int
    baseline: float
    layers: list[LayerScore]


def probe(settings: ProbeSettings, progress: Progress = NO_PROGRESS) -> ProbeResult:
    """Probe a cache as the settings say.

    Raises:
        CacheError: it is not complete, or lacks a layer.
        InputError: its examples have no answers, or are too few to be split.
    """
    with open_cache(settings.cache) as cache:
        layers = cache.layers if settings.layers is None else settings.layers
        indices = sorted(
            random.Random(settings.seed).sample(
                range(len(cache)), min(settings.examples, len(cache))
            )
        )
        return probe_examples(cache, indices, layers, settings.validation, settings.seed, progress)


def probe_examples(
    cache: Cache,
    indices: list[int],
    layers: tuple[int, ...],
    validation: float,
    seed: int,
    progress: Progress = NO_PROGRESS,
) -> ProbeResult:
    """Probe layers on some examples of a cache.

    Args:
        cache: to read from.
        indices: of the examples.
        layers: to compare.
        validation: share of the examples to hold out; groups stay together.
        seed: of the split.
        progress: counts examples and layers.

    Raises:
        CacheError: the cache lacks a layer.
        InputError: the examples have no answers, or are too few to be split.
    """
    try:
        training, held_out = split_rows(
            [cache.row_ids[index] for index in indices],
            validation=validation,
            seed=seed,
            groups=groups_of(cache),
        )
    except ValueError as error:
        raise InputError(f"{cache.address}: {error}; a probe needs more examples") from error
    examples = read_examples(cache, indices, layers, progress)
    targets = targets_of(examples.answers)
    if targets.classes < 2:
        raise InputError(f"{cache.address}: all answers are alike, so there is nothing to probe")
    progress.stage("probe", len(layers))
    scores = []
    for layer in layers:
        scores.append(_score(layer, examples.features[layer], targets, training, held_out))
        progress.advance()
    return ProbeResult(
        target="label" if targets.are_labels else "words",
        classes=targets.classes,
        training=len(training),
        held_out=len(held_out),
        baseline=_baseline(targets, training, held_out),
        layers=sorted(scores, key=lambda score: -score.score),
    )


def _score(
    layer: int,
    features_ND: npt.NDArray[np.float32],
    targets: Targets,
    training: list[int],
    held_out: list[int],
) -> LayerScore:
    from sklearn.linear_model import RidgeClassifierCV, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kind = RidgeClassifierCV if targets.are_labels else RidgeCV
    model = make_pipeline(StandardScaler(), kind(alphas=_STRENGTHS))
    model.fit(features_ND[training], targets.values[training])
    scores = (
        _scored(targets, rows, model.predict(features_ND[rows])) for rows in (held_out, training)
    )
    return LayerScore(layer, *scores)


def _scored(targets: Targets, rows: list[int], predicted: npt.NDArray[Any]) -> float:
    actual = targets.values[rows]
    if targets.are_labels:
        return float((predicted == actual).mean())
    variance = ((actual - targets.values.mean(axis=0)) ** 2).sum()
    return float(1 - ((predicted - actual) ** 2).sum() / variance)


def _baseline(targets: Targets, training: list[int], held_out: list[int]) -> float:
    if not targets.are_labels:
        mean = targets.values[training].mean(axis=0)
        return _scored(targets, held_out, np.broadcast_to(mean, (len(held_out), len(mean))))
    most_frequent = np.bincount(targets.values[training]).argmax()
    return _scored(targets, held_out, np.full(len(held_out), most_frequent))
