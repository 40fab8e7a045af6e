"""`cache …` and `extract --plan` as users meet them: results, errors of one line, exit statuses."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache import open_cache
from cache.upkeep.verify import verify_cache
from tests.cache.faults import flip_byte, remove, shard_paths
from tests.cli_process import CliProcess, run_process
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


@pytest.fixture
def root(small_cache: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small_cache, tmp_path / "c")


def test_inspect_keeps_the_contract(run_cli: RunCli, small_cache: Path) -> None:
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


def test_inspect_is_for_people_and_quick(small_cache: Path) -> None:
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
    for said in (
        "(complete)",
        "zarr, bf16",
        "-1, 0, each 128 wide",
        "16.0 bits per value",
        "teacher_weights",
    ):
        assert said in done.stdout


def test_what_is_asked_of_a_codec_is_refused_before_the_work(
    run_cli: RunCli, tmp_path: Path
) -> None:
    for words, said in (
        (["--bits", "16"], "--bits 16: bf16 takes 16 and is exact; ask for fewer"),
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
        assert said in done.stderr


def test_a_cache_whose_fit_is_gone_is_not_gone_on_with(run_cli: RunCli, tmp_path: Path) -> None:
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
            "attachments/codecs/layer-1.safetensors: missing; mend it with `cache repair`"
            in done.stderr
        )
    assert run_cli("cache", "repair", tmp_path / "c").returncode == 0
    assert run_cli(*words).returncode == 0


def test_fidelity_writes_nothing_into_the_cache(run_cli: RunCli, root: Path) -> None:
    done = run_cli("cache", "fidelity", root, "--out", root / "here")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is inside the cache" in done.stderr
    assert not (root / "here").exists()


def test_verify_names_damage_on_stdout_and_ends_with_one_line(run_cli: RunCli, root: Path) -> None:
    assert "complete; content digest" in run_cli("cache", "verify", root).stdout
    path = root / "shards" / "000001.zarr" / "hidden_states" / "0" / "c" / "0" / "0"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    remove(shard_paths(root)[2])
    store = open_cache(root)
    first = len(store.records[0].row_ids)
    done = run_cli("cache", "verify", root)
    assert done.returncode == 1
    assert (
        "damaged: shards/000001.zarr/hidden_states/0/c/0/0: its bytes have changed since they were"
        " written" in done.stdout
    )
    assert f"example {first} (row {store.row_ids[first]})" in done.stdout
    assert "damaged: shards/000002.zarr: missing" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line == f"error: {root}: 2 damaged shards (1, 2); repair it with `cache repair {root}`"
    done = run_cli("cache", "verify", root, "--json")
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


def test_repair_brings_the_digest_back(run_cli: RunCli, root: Path) -> None:
    before = open_cache(root).content_digest
    remove(shard_paths(root)[0])
    assert run_cli("train", "--cache", root, "--run", root / "run").returncode == 1
    done = run_cli("cache", "repair", root, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "extracted again: 1 shard," in done.stdout
    assert "with the same numbers as the lost ones" in done.stdout
    assert open_cache(root).content_digest == before
    assert json.loads(run_cli("cache", "repair", root, "--json").stdout)["shards"] == []
    assert run_cli("cache", "repair", root).stdout.startswith(
        f"{root}: nothing to repair; content digest "
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
    for said in (
        "stored as bf16",
        "fitted to",
        "bound",
        "KL",
        "fp8 e4m3",
        "int4",
        "close: kl=0.01",
        f"written to {tmp_path}",
    ):
        assert said in done.stdout
    assert json.loads((tmp_path / "out" / "fidelity.json").read_text()) == json.loads(
        run_cli(*words, "--json").stdout
    )
    assert (tmp_path / "out" / "fidelity.svg").exists()
    missing = run_cli("cache", "fidelity", small_cache, "--layer", "7")
    assert (missing.returncode, len(missing.stderr.splitlines())) == (2, 1)


@pytest.mark.parametrize("command", ["inspect", "verify", "repair", "fidelity"])
@pytest.mark.parametrize("what", ["nothing", "empty folder", "a file", "an object store"])
def test_what_is_no_cache_is_said_so_and_left_alone(
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


def test_a_damaged_manifest_is_a_failed_run_with_a_way_out(run_cli: RunCli, root: Path) -> None:
    (root / "manifest.json").write_text("{}")
    for words in (["cache", "inspect", root], ["train", "--cache", root, "--run", root / "run"]):
        done = run_cli(*words)
        assert done.returncode == 1
        assert "cache repair" in done.stderr
    assert run_cli("cache", "repair", root).returncode == 0
    assert run_cli("cache", "verify", root).returncode == 0


@pytest.mark.parametrize("words", [[], ["cache"]])
def test_a_group_without_a_command_shows_its_help(words: list[str], run_cli: RunCli) -> None:
    done = run_cli(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == run_cli(*words, "--help").stdout


@pytest.mark.parametrize("command", ["inspect", "verify", "repair", "convert", "fidelity"])
def test_help_teaches(command: str, run_cli: RunCli) -> None:
    done = run_cli("cache", command, "--help")
    assert done.returncode == 0
    assert all(said in done.stdout for said in ("Example", "--json", "--debug"))
    assert command in run_cli("cache", "--help").stdout


def test_plan_writes_nothing_and_tells_what_extract_then_does(
    run_cli: RunCli, tmp_path: Path
) -> None:
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


def on_tmpfs(folder: Path, megabytes: int) -> bool:
    return (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", folder], check=False
        ).returncode
        == 0
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 48 MB; skipped where mounting is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not on_tmpfs(folder, 48):
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=False)


def test_a_disk_that_is_too_small_is_refused_before_the_start_and_fills_up_with_one_line(
    small_disk: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [
        "extract",
        "--cache",
        small_disk / "c",
        "--limit",
        200,
        "--layers",
        "-1,0,1,2,3,4",
        "--shard-tokens",
        1500,
        "--dtype",
        "fp32",
        "--device",
        "cpu",
    ]
    done = run_cli(*options)
    assert done.returncode == 2
    assert "its disk has 50.33 MB free" in done.stderr
    assert list(small_disk.iterdir()) == []
    monkeypatch.setattr(
        "pipeline.extract.run.require_room", lambda *_: None
    )  # another program fills the disk while it runs
    (small_disk / "other").write_bytes(bytes(24 << 20))
    done = run_cli(*options)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the disk is full")
    (small_disk / "other").unlink()
    result = json.loads(run_cli(*options, "--json").stdout)
    assert 0 < result["resumed_shards"] < result["shards"]
    assert run_cli("cache", "verify", small_disk / "c").returncode == 0


def test_a_disk_that_vanishes_ends_the_run_with_one_line(small_disk: Path) -> None:
    """Unmounted under the running command; in the empty mount point nothing can be taken for a
    cache afterwards."""
    process = CliProcess(
        "extract",
        "--cache",
        small_disk / "c",
        "--limit",
        "150",
        "--shard-tokens",
        "200",
        "--dtype",
        "fp32",
        "--device",
        "cpu",
        "--batch-tokens",
        "200",
    )
    journal = small_disk / "c" / "journal.jsonl"
    while process.poll() is None and not (
        journal.exists() and journal.read_bytes().count(b"\n") > 3
    ):
        time.sleep(0.001)
    subprocess.run(["umount", "-l", small_disk], check=True)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 1, stderr
    assert stderr.count("\n") == 1
    assert "vanished" in stderr or "No such file" in stderr
    assert "repeat the command" in stderr
    assert [
        path
        for path in small_disk.rglob("*")
        if path.suffix in (".json", ".jsonl") and path.name != "zarr.json"
    ] == []


def test_two_extracts_into_one_cache(tmp_path: Path) -> None:
    options = [
        "--limit",
        "150",
        "--shard-tokens",
        "100",
        "--batch-tokens",
        "100",
        "--dtype",
        "fp32",
        "--device",
        "cpu",
    ]
    first = CliProcess("extract", "--cache", tmp_path / "c", *options)
    while first.poll() is None and not (tmp_path / "c" / "manifest.json").exists():
        time.sleep(0.001)
    for _ in range(5):  # looking is always allowed, whatever the writer renames in the meantime
        assert verify_cache(tmp_path / "c").damage == []
    first.send_signal(signal.SIGSTOP)  # holds its lock however long the others take
    for words in (
        ["extract", "--cache", tmp_path / "c", *options],
        ["cache", "repair", tmp_path / "c"],
    ):
        done = run_process(*words)
        assert first.poll() is None, "the first was done too soon to be in the way"
        assert done.returncode == 2
        assert "another process is writing to this cache" in done.stderr
    first.kill()
    first.wait()
    assert run_process("extract", "--cache", tmp_path / "c", *options).returncode == 0


def test_flips_are_found_from_the_command_line(run_cli: RunCli, root: Path) -> None:
    flip_byte(root / "journal.jsonl", random.Random(1))
    assert run_cli("cache", "verify", root).returncode == 1
    assert run_cli("train", "--cache", root, "--run", root / "run").returncode in (1, 2)
