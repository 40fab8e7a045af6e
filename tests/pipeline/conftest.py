"""Runs, caches and models that several files share. Session scope: each takes seconds to make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.runs.comparisons import CONTROLS
from pipeline.training.run import train
from tests.pipeline.short_runs import make_byte_gpt_neo, short_prompt_run, short_run


@pytest.fixture(scope="session")
def trained_run(small_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a student of whole examples with its controls; copy it to change its models."""
    run = tmp_path_factory.mktemp("trained") / "run"
    train(short_run(small_cache, run), comparisons=CONTROLS)
    return run


@pytest.fixture(scope="session")
def prompt_cache(embedded_settings: Callable[..., ExtractSettings]) -> Path:
    """Return a read-only cache of the prompts of 40 embedded problems."""
    settings = embedded_settings(condition="prompt")
    extract(prepare(settings))
    return Path(str(settings.cache))


@pytest.fixture(scope="session")
def byte_gpt_neo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a GPT-Neo whose tokenizer differs from the teacher's."""
    return make_byte_gpt_neo(tmp_path_factory.mktemp("gpt-neo"), positions=1024)


@pytest.fixture(scope="session")
def prompt_run(
    prompt_cache: Path, byte_gpt_neo: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a student of prompts with its controls; copy it to change its models."""
    run = tmp_path_factory.mktemp("prompt") / "run"
    settings = short_prompt_run(prompt_cache, run, student=str(byte_gpt_neo), epochs=3)
    train(settings, comparisons=CONTROLS)
    return run
