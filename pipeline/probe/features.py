"""What a probe reads: the states of a prompt, as one vector per layer; and the texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache import Cache
from pipeline.data.transcript import transcript_of
from pipeline.errors import InputError
from pipeline.progress import NO_PROGRESS, Progress


@dataclass(frozen=True)
class ProbeExamples:
    """The last answers of some examples.

    Attributes:
        answers: their texts.
        prompts: the texts before them.
        features: by layer, `[N, 2 * d_teacher]` float32: the state of the last token before the
            answer, and the mean over the states of all tokens before it.
    """

    answers: list[str]
    prompts: list[str]
    features: dict[int, npt.NDArray[np.float32]]


def joined(one: ProbeExamples, other: ProbeExamples) -> ProbeExamples:
    """Return the examples of both, which have the same layers."""
    return ProbeExamples(
        answers=one.answers + other.answers,
        prompts=one.prompts + other.prompts,
        features={
            layer: np.concatenate([rows, other.features[layer]])
            for layer, rows in one.features.items()
        },
    )


def read_examples(
    cache: Cache,
    indices: Sequence[int],
    layers: Sequence[int],
    progress: Progress = NO_PROGRESS,
) -> ProbeExamples:
    """Read the prompts' states and the answers of some examples.

    Args:
        cache: to read from.
        indices: of the examples.
        layers: of the cache.
        progress: counts the examples.

    Raises:
        InputError: the cache has no transcripts, or an example no answer.
    """
    answers: list[str] = []
    prompts: list[str] = []
    rows: dict[int, list[npt.NDArray[np.float32]]] = {layer: [] for layer in layers}
    progress.stage("read", len(indices))
    for index in indices:
        transcript = transcript_of(cache, index)
        if not transcript.answers or not transcript.answers[-1].start:
            raise InputError(
                f"{cache.address}: row {cache.row_ids[index]} has no prompt with an answer; a probe"
                " needs a data set of questions"
            )
        answer = transcript.answers[-1]
        answers.append(transcript.answer_text(answer).strip())
        prompts.append("\n".join(turn.plain_text for turn in transcript.prompt_of(answer)))
        for layer, states in cache.example(index, layers).hidden_states.items():
            before_TD = states[: answer.start].astype(np.float32)
            rows[layer].append(np.concatenate([before_TD[-1], before_TD.mean(axis=0)]))
        progress.advance()
    features = {layer: np.stack(vectors) for layer, vectors in rows.items()}
    return ProbeExamples(answers, prompts, features)
