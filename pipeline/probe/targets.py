"""What a probe predicts of an answer: its label, or the words that its prompt does not contain.

Words quoted from the prompt are best read from the embeddings, so they would favour layer 0 without
needing any knowledge (docs/LOG.md, section 12).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_REPEATS = 3
"""Answers are labels if they repeat at least this often on average."""
_MAX_WORDS = 1000


@dataclass(frozen=True)
class Targets:
    """The targets of all examples.

    Attributes:
        values: label numbers `[N]`, or `[N, words]`: 1 for the words of the answer alone.
        are_labels: whether they are labels.
        classes: number of labels or words.
    """

    values: npt.NDArray[Any]
    are_labels: bool
    classes: int


def targets_of(answers: Sequence[str], prompts: Sequence[str]) -> Targets:
    """Return labels if the answers repeat, else the words of each answer that its prompt lacks.

    Words that are new in one answer only, or in all, are left out.
    """
    labels, numbers = np.unique(np.asarray(answers, dtype=object), return_inverse=True)
    if len(labels) * _REPEATS <= len(answers):
        return Targets(numbers, are_labels=True, classes=len(labels))
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(binary=True, min_df=2, max_features=_MAX_WORDS)
    words = vectorizer.fit_transform(answers).toarray().astype(np.float32)
    words *= vectorizer.transform(prompts).toarray() == 0
    words = words[:, (words.sum(axis=0) > 1) & (words.min(axis=0) < 1)]
    return Targets(words, are_labels=False, classes=words.shape[1])
