"""Option values that load without libraries are equal to those of the libraries."""

from __future__ import annotations

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from cache.codecs import CODEC_NAMES, packing_named
from cache.containers import CONTAINER_NAMES, container_named
from pipeline.choices import REPORTERS

DEPRECATED, ALWAYS_ACTIVE = "neptune", "tensorboard"


def test_names_of_containers_and_codecs_are_those_of_their_classes() -> None:
    assert [container_named(name).name for name in CONTAINER_NAMES] == list(CONTAINER_NAMES)
    assert [packing_named(name).name for name in CODEC_NAMES] == list(CODEC_NAMES)


def test_reporters_are_those_of_transformers() -> None:
    assert set(REPORTERS) == {*INTEGRATION_TO_CALLBACK} - {DEPRECATED, ALWAYS_ACTIVE}
