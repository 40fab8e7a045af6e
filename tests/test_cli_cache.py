"""`cache …` as users meet it: results, one-line errors, exit statuses."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from cache import open_cache
from tests.cache.faults import flip_byte, remove, shard_paths
from tests.conftest import ROOT, RunCli

CONTRACT = {
    "format",
    "codec",
    "layers",
    "examples",
    "tokens",
    "stored_tokens",
    "bytes",
    "bytes_per_token",
    "bits_per_value",
    "shards",
    "identity",
    "content_digest",
    "complete",
}


def test_inspect_json_has_the_documented_keys(run_cli: RunCli, small_cache: Path) -> None:
    summary = json.loads(run_cli("cache", "inspect", small_cache, "--json").stdout)
    store = open_cache(small_cache)
    assert summary.keys() >= CONTRACT
    assert (summary["examples"], summary["tokens"], summary["bytes"]) == (
        len(store),
        int(store.lengths.sum()),
        store.bytes,
    )
    assert (summary["layers"], summary["complete"], summary["bits_per_value"]) == (
        [-1, 0],
        True,
        16.0,
    )
    assert summary["bytes_per_token"] == round(store.bytes / summary["tokens"], 2)
    assert (summary["identity"], summary["content_digest"]) == (
        store.identity,
        store.content_digest,
    )


def test_inspect_prints_text_without_importing_torch(small_cache: Path) -> None:
    program = (
        "import sys; sys.argv = ['cli', 'cache', 'inspect', sys.argv[1]]; from cli import"
        " main\ntry: main()\n"
    )
    program += "finally: assert not {'torch', 'transformers'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program, small_cache],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for expected in (
        "(complete)",
        "zarr, bf16",
        "-1, 0, each 128 wide",
        "16.0 bits per value",
        "teacher_weights",
    ):
        assert expected in done.stdout


def test_verify_lists_damage_on_stdout_and_ends_with_one_error_line(
    run_cli: RunCli, copied_cache: Path
) -> None:
    assert "complete; content digest" in run_cli("cache", "verify", copied_cache).stdout
    path = copied_cache / "shards" / "000001.zarr" / "hidden_states" / "0" / "c" / "0" / "0"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    remove(shard_paths(copied_cache)[2])
    store = open_cache(copied_cache)
    first = len(store.records[0].row_ids)
    done = run_cli("cache", "verify", copied_cache)
    assert done.returncode == 1
    assert (
        "damaged: shards/000001.zarr/hidden_states/0/c/0/0: its bytes have changed since they were"
        " written" in done.stdout
    )
    assert f"example {first} (row {store.row_ids[first]})" in done.stdout
    assert "damaged: shards/000002.zarr: missing" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line == (
        f"error: {copied_cache}: 2 damaged shards (1, 2); repair it with"
        f" `cache repair {copied_cache}`"
    )
    done = run_cli("cache", "verify", copied_cache, "--json")
    result = json.loads(done.stdout)
    assert (done.returncode, result["whole"], result["deep"]) == (1, False, None)
    assert result["damage"][0]["examples"] == [first]


def test_verify_deep_compares_with_the_live_teacher(run_cli: RunCli, small_cache: Path) -> None:
    done = run_cli("cache", "verify", small_cache, "--deep", "--sample", 4, "--device", "cpu")
    assert done.returncode == 0
    assert "layer -1: relative error" in done.stdout
    deep = json.loads(
        run_cli(
            "cache", "verify", small_cache, "--deep", "--sample", 4, "--device", "cpu", "--json"
        ).stdout
    )["deep"]
    assert (deep["examples"], [layer["within_tolerance"] for layer in deep["layers"]]) == (
        4,
        [True, True],
    )


def test_repair_restores_the_digest(run_cli: RunCli, copied_cache: Path) -> None:
    before = open_cache(copied_cache).content_digest
    remove(shard_paths(copied_cache)[0])
    assert run_cli("train", "--cache", copied_cache, "--run", copied_cache / "run").returncode == 1
    done = run_cli("cache", "repair", copied_cache, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "extracted again: 1 shard," in done.stdout
    assert "with the same numbers as the lost ones" in done.stdout
    assert open_cache(copied_cache).content_digest == before
    assert json.loads(run_cli("cache", "repair", copied_cache, "--json").stdout)["shards"] == []
    assert run_cli("cache", "repair", copied_cache).stdout.startswith(
        f"{copied_cache}: nothing to repair; content digest "
    )


def test_convert_writes_the_other_format(
    run_cli: RunCli, small_cache: Path, tmp_path: Path
) -> None:
    done = run_cli("cache", "convert", small_cache, tmp_path / "h", "--format", "hdf5")
    assert done.returncode == 0, done.stderr
    assert "as before" in done.stdout
    assert {path.suffix for path in shard_paths(tmp_path / "h")} == {".h5"}
    again = json.loads(
        run_cli(
            "cache", "convert", small_cache, tmp_path / "h", "--format", "hdf5", "--json"
        ).stdout
    )
    assert again["resumed_shards"] == again["shards"]


@pytest.mark.parametrize("command", ["inspect", "verify", "repair", "probe", "fidelity"])
@pytest.mark.parametrize("what", ["nothing", "empty folder", "a file", "an object store"])
def test_paths_without_a_cache_are_refused_and_unchanged(
    command: str, what: str, run_cli: RunCli, tmp_path: Path
) -> None:
    place: object = tmp_path / "x"
    if what == "empty folder":
        (tmp_path / "x").mkdir()
    elif what == "a file":
        (tmp_path / "x").write_text("hello")
    elif what == "an object store":
        place = "gs://bucket/prefix"
    before = sorted(tmp_path.rglob("*"))
    done = run_cli("cache", command, place)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_the_error_for_a_damaged_manifest_names_the_repair(
    run_cli: RunCli, copied_cache: Path
) -> None:
    (copied_cache / "manifest.json").write_text("{}")
    for words in (
        ["cache", "inspect", copied_cache],
        ["train", "--cache", copied_cache, "--run", copied_cache / "run"],
    ):
        done = run_cli(*words)
        assert done.returncode == 1
        assert "cache repair" in done.stderr
    assert run_cli("cache", "repair", copied_cache).returncode == 0
    assert run_cli("cache", "verify", copied_cache).returncode == 0


@pytest.mark.parametrize("words", [[], ["cache"]])
def test_a_group_without_a_command_shows_its_help(words: list[str], run_cli: RunCli) -> None:
    done = run_cli(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == run_cli(*words, "--help").stdout


@pytest.mark.parametrize("command", ["inspect", "verify", "repair", "convert", "probe", "fidelity"])
def test_help_has_examples_and_shared_options(command: str, run_cli: RunCli) -> None:
    done = run_cli("cache", command, "--help")
    assert done.returncode == 0
    assert all(expected in done.stdout for expected in ("Example", "--json", "--debug"))
    assert command in run_cli("cache", "--help").stdout


def test_verify_and_train_find_flipped_bytes(run_cli: RunCli, copied_cache: Path) -> None:
    flip_byte(copied_cache / "journal.jsonl", random.Random(1))
    assert run_cli("cache", "verify", copied_cache).returncode == 1
    assert run_cli("train", "--cache", copied_cache, "--run", copied_cache / "run").returncode in (
        1,
        2,
    )


def test_probe_prints_a_ranking(run_cli: RunCli, small_cache: Path) -> None:
    done = run_cli("cache", "probe", small_cache, "--folds", 2)
    assert done.returncode == 0, done.stderr
    result = json.loads(run_cli("cache", "probe", small_cache, "--folds", 2, "--json").stdout)
    assert {score["layer"] for score in result["layers"]} == {-1, 0}
    assert f"best: --layers {result['layers'][0]['layer']}" in done.stdout
    assert f"{result['layers'][0]['score']:.1%}" in done.stdout


def test_probe_refuses_a_missing_layer_and_too_many_folds(
    run_cli: RunCli, small_cache: Path
) -> None:
    for words, problem in ((["--layers", "5"], "layer 5 is not cached"), (["--folds", 99], "few")):
        done = run_cli("cache", "probe", small_cache, *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert problem in done.stderr
