"""Names that options know without their libraries are those that the libraries' side knows."""

from __future__ import annotations

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from cache.codecs import CODEC_NAMES, packing_named
from cache.containers import CONTAINER_NAMES, container_named
from pipeline.choices import REPORTERS

DEPRECATED, ALWAYS_TOLD = "neptune", "tensorboard"


def test_formats_and_codecs_are_those_that_can_be_had() -> None:
    assert [container_named(name).name for name in CONTAINER_NAMES] == list(CONTAINER_NAMES)
    assert [packing_named(name).name for name in CODEC_NAMES] == list(CODEC_NAMES)


def test_reporters_are_those_that_transformers_knows() -> None:
    assert set(REPORTERS) == {*INTEGRATION_TO_CALLBACK} - {DEPRECATED, ALWAYS_TOLD}
