"""Codecs on the command line: options, `extract --plan`, `cache fidelity`, `cache convert`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import RunCli


def test_impossible_codec_options_are_refused_before_the_work(
    run_cli: RunCli, tmp_path: Path
) -> None:
    for words, expected in (
        (["--bits", "16"], "--bits 16: bf16 takes 16 and is exact; choose fewer"),
        (["--fidelity", "rel=2"], "--fidelity rel=2: an error as large as the states themselves"),
        (
            ["--fidelity", "kl=0.01"],
            ("does not read layer 0; restrict it to --fidelity -1:kl=0.01, or use rel=…"),
        ),
    ):
        done = run_cli(
            "extract",
            "--cache",
            tmp_path / "c",
            "--limit",
            "5",
            "--layers",
            "-1,0",
            "--codec",
            "klt",
            *words,
            "--plan",
        )
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert expected in done.stderr


def test_an_extract_with_a_lost_codec_fit_is_not_continued(run_cli: RunCli, tmp_path: Path) -> None:
    words = [
        "extract",
        "--cache",
        tmp_path / "c",
        "--limit",
        "20",
        "--codec",
        "int8",
        "--dtype",
        "fp32",
        "--device",
        "cpu",
    ]
    assert run_cli(*words).returncode == 0
    (tmp_path / "c" / "attachments" / "codecs" / "layer-1.safetensors").unlink()
    for more in ([], ["--plan"]):
        done = run_cli(*words, *more)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert (
            "attachments/codecs/layer-1.safetensors: missing; repair it with `cache repair`"
            in done.stderr
        )
    assert run_cli("cache", "repair", tmp_path / "c").returncode == 0
    assert run_cli(*words).returncode == 0


def test_fidelity_writes_nothing_into_the_cache(run_cli: RunCli, copied_cache: Path) -> None:
    done = run_cli("cache", "fidelity", copied_cache, "--out", copied_cache / "here")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is inside the cache" in done.stderr
    assert not (copied_cache / "here").exists()


def test_convert_compresses_without_the_data_set(
    run_cli: RunCli, small_cache: Path, tmp_path: Path
) -> None:
    words = [
        "cache",
        "convert",
        small_cache,
        tmp_path / "c",
        "--codec",
        "-1:klt",
        "--codec",
        "0:int8",
        "--fidelity",
        "rel=0.2",
    ]
    done = json.loads(run_cli(*words, "--json").stdout)
    assert done["codec"] == "-1:klt,0:int8"
    assert done["bytes"] < 0.5 * done["source_bytes"]
    assert not done["same_content"]
    summary = json.loads(run_cli("cache", "inspect", tmp_path / "c", "--json").stdout)
    assert summary["bits_per_value_of_layers"]["-1"] < 4
    assert summary["identity"]["codec"]["-1"]["asked"] == "rel=0.2"
    assert run_cli("cache", "verify", tmp_path / "c").returncode == 0
    refused = run_cli("cache", "convert", tmp_path / "c", tmp_path / "d", "--codec", "bf16")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert not (tmp_path / "d").exists()


def test_fidelity_prints_a_table_and_writes_a_picture(
    run_cli: RunCli, small_cache: Path, tmp_path: Path
) -> None:
    words = [
        "cache",
        "fidelity",
        small_cache,
        "--layer",
        "-1",
        "--tokens",
        "1000",
        "--kl-tokens",
        "200",
        "--device",
        "cpu",
    ]
    done = run_cli(*words, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    for expected in (
        "stored as bf16",
        "fitted to",
        "bound",
        "KL",
        "fp8 e4m3",
        "int4",
        "close: kl=0.01",
        f"written to {tmp_path}",
    ):
        assert expected in done.stdout
    assert json.loads((tmp_path / "out" / "fidelity.json").read_text()) == json.loads(
        run_cli(*words, "--json").stdout
    )
    assert (tmp_path / "out" / "fidelity.svg").exists()
    missing = run_cli("cache", "fidelity", small_cache, "--layer", "7")
    assert (missing.returncode, len(missing.stderr.splitlines())) == (2, 1)


def test_plan_writes_nothing_and_matches_the_extract(run_cli: RunCli, tmp_path: Path) -> None:
    options = [
        "extract",
        "--cache",
        tmp_path / "c",
        "--limit",
        30,
        "--layers",
        "-1,0",
        "--device",
        "cpu",
    ]
    plan = json.loads(run_cli(*options, "--plan", "--json").stdout)
    assert list(tmp_path.iterdir()) == []
    words = run_cli(*options, "--plan").stdout
    assert f"-> zarr bf16: {plan['bytes']['zarr']['bf16']:,} bytes" in words
    assert "it fits" in words
    assert "tokens/s" in words
    result = json.loads(run_cli(*options, "--json").stdout)
    assert (result["bytes"], result["tokens"]) == (plan["bytes"]["zarr"]["bf16"], plan["tokens"])
