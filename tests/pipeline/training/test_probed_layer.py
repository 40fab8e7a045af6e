"""`--layers auto` trains on the layer that a probe of the training rows reads best."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cache import open_cache
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.probe.run import probe_rows
from pipeline.probe.settings import ProbeSettings
from pipeline.runs.folder import RunFolder
from pipeline.runs.rows import rows_of
from pipeline.training.probed_layer import with_probed_layer
from pipeline.training.run import train
from tests.conftest import RunCli
from tests.pipeline.short_runs import short_prompt_run


@pytest.fixture(scope="module")
def layered_cache(embedded_settings: Callable[..., ExtractSettings]) -> Path:
    """Return a cache of prompts with layers spread over the teacher's depth."""
    settings = embedded_settings(condition="prompt", layers=(), limit=60)
    extract(prepare(settings))
    return Path(str(settings.cache))


def test_extract_spreads_the_layers_over_the_depth(layered_cache: Path) -> None:
    with open_cache(layered_cache) as cache:
        assert cache.layers[:2] == (-1, 0)
        assert list(cache.layers[2:]) == sorted({*cache.layers[2:]})
        assert len(cache.layers) > 3


def test_the_best_layer_is_trained_on_recorded_and_kept(
    layered_cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = short_prompt_run(layered_cache, tmp_path / "run", layers=(), max_steps=2)
    train(settings)
    (layer,) = RunFolder(tmp_path / "run").read_record().settings.layers
    with open_cache(layered_cache) as cache:
        training, _ = rows_of(cache, settings)
        result = probe_rows(cache, training, ProbeSettings(cache=layered_cache, seed=settings.seed))
    assert layer == result.layers[0].layer
    assert f"layer {layer}, by a linear probe" in capfd.readouterr().err
    train(settings, resume=True)
    assert RunFolder(tmp_path / "run").read_record().settings.layers == (layer,)


def test_rows_held_out_from_the_run_do_not_count(layered_cache: Path, tmp_path: Path) -> None:
    settings = short_prompt_run(layered_cache, tmp_path / "run", layers=(), max_steps=1)
    with open_cache(layered_cache) as cache:
        held_out = {cache.row_ids[index] for index in rows_of(cache, settings)[1]}
        read: list[str] = []
        plain = cache.example

        def example(index: int, layers: object = None) -> object:
            read.append(cache.row_ids[index])
            return plain(index, layers)  # type: ignore[arg-type]

        cache.example = example  # type: ignore[assignment,method-assign]
        with_probed_layer(settings, cache, resume=False)
    assert read and not held_out & {*read}


def test_the_saved_file_keeps_auto(run_cli: RunCli, layered_cache: Path, tmp_path: Path) -> None:
    done = run_cli(
        *("train", "--cache", layered_cache, "--run", tmp_path / "run", "--layers", "auto"),
        *("--condition", "prompt", "--cross-every", 1, "--max-steps", 1, "--device", "cpu"),
    )
    assert done.returncode == 0, done.stderr
    assert "layers: auto" in (tmp_path / "run" / "train.yaml").read_text()


def test_other_conditions_need_a_layer(run_cli: RunCli, small_cache: Path, tmp_path: Path) -> None:
    done = run_cli("train", "--cache", small_cache, "--run", tmp_path / "run", "--layers", "auto")
    assert done.returncode == 2
    assert "--layers auto: only for --condition prompt, not sequence" in done.stderr
