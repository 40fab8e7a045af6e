"""Codec requirements hold on text that the codecs were not fitted to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache import open_cache
from cache.codec_fits import read_codecs
from cache.manifest import read_manifest
from pipeline.codec_fit.measures import divergence_of, relative_error
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.teacher.load import load_teacher
from pipeline.teacher.source import find_teacher
from tests.conftest import write_rows

Make = Callable[..., ExtractSettings]
TOLERANCE = 1.3
"""Ratio of the distortion on unseen text to the requirement that is accepted."""


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(EMBEDDED_DATASET).read_text().splitlines()]


@pytest.mark.parametrize("fidelity", ["kl=0.01", "rel=0.1"])
def test_unseen_text_meets_the_requirement(
    fidelity: str, embedded_settings: Make, tmp_path: Path
) -> None:
    measure, target = fidelity.split("=")
    seen = write_rows(tmp_path / "seen.jsonl", rows()[:300])
    unseen = write_rows(tmp_path / "unseen.jsonl", rows()[300:420])
    fitted = embedded_settings(
        dataset=str(seen),
        layers=(-1,),
        limit=None,
        codec=("klt",),
        fidelity=(fidelity,),
        calibration_tokens=16384,
    )
    exact = embedded_settings(dataset=str(unseen), layers=(-1,), limit=None)
    extract(prepare(fitted))
    extract(prepare(exact))
    codec = read_codecs(fitted.cache, read_manifest(fitted.cache))[-1]
    with open_cache(exact.cache) as cache:
        states_ND = np.concatenate([example.hidden_states[-1] for example in cache])
    decoded_ND = codec.decode(codec.encode(states_ND))
    if measure == "rel":
        distortion = relative_error(states_ND, decoded_ND)
    else:
        source = find_teacher(EMBEDDED_TEACHER, "decoder").pinned()
        teacher = load_teacher(source, (-1,), torch.device("cpu"), "fp32", with_lm_head=True)
        (kl,) = divergence_of(teacher)(states_ND, [decoded_ND])
        distortion = kl.mean
    print(f"{fidelity}: {distortion / float(target):.3f} of it on {len(states_ND)} tokens")
    assert 0.3 < distortion / float(target) <= TOLERANCE
