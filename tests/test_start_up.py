"""Start-up: help, completion and refusals of wrong input do not import slow libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_help import NAMES

FAST = {
    "_yaml", "cache", "cli", "click", "cloup", "cython_runtime", "pipeline", "typing_extensions",
    "xxhash", "yaml",
}  # fmt: skip
"""What help may import besides Python's standard library."""
SLOW = {
    "torch", "transformers", "datasets", "accelerate", "pyarrow", "h5py", "zarr", "matplotlib",
    "pandas", "scipy", "sympy",
}  # fmt: skip
GROUPS = ["llm-modules", "llm-modules cache"]
PROGRAM = """
import os, sys
before = set(sys.modules)
from cli import main
try:
    main(prog_name="llm-modules")
finally:
    with open(os.environ["IMPORTED"], "w") as stream:
        stream.write("\\n".join(set(sys.modules) - before))
"""


def imported(*words: object, folder: Path, status: int, **environment: str) -> tuple[set[str], str]:
    """Run a command; return the libraries that it imported, and its output."""
    path = folder / "imported"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"IMPORTED": str(path)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    names = {name.partition(".")[0] for name in path.read_text().split()}
    # imported by yaml, with a release in the name
    libraries = {name for name in names if not name.startswith("_cython_")}
    return libraries - sys.stdlib_module_names, done.stdout + done.stderr


@pytest.mark.parametrize("name", [*GROUPS, *NAMES])
def test_help_imports_nothing_slow(name: str, tmp_path: Path) -> None:
    for flag in ("--help", "-h"):
        libraries, printed = imported(*name.split()[1:], flag, folder=tmp_path, status=0)
        assert libraries <= FAST
        assert printed.startswith(f"Usage: {name} ")


@pytest.mark.parametrize(
    "words, status",
    [([], 2), (["--version"], 0), (["extrct"], 2), (["extract", "--form", "none"], 2)],
)
def test_other_first_words_import_nothing_slow(
    words: list[str], status: int, tmp_path: Path
) -> None:
    libraries, _ = imported(*words, folder=tmp_path, status=status)
    assert libraries <= FAST


def test_completion_of_options_imports_nothing_slow(tmp_path: Path) -> None:
    completion = {
        "COMP_WORDS": "llm-modules extract --temp",
        "COMP_CWORD": "2",
        "_LLM_MODULES_COMPLETE": "bash_complete",
    }
    libraries, printed = imported(folder=tmp_path, status=0, **completion)
    assert libraries <= FAST
    assert printed.split() == ["plain,--template"]


def wrong_inputs(folder: Path, cache: Path) -> dict[str, tuple[list[object], str]]:
    """Return commands with missing or wrong files or values, and a part of the expected error."""
    none, other, new = folder / "none", folder / "other", folder / "new"
    other.mkdir(exist_ok=True)
    (other / "notes.txt").write_text("neither a cache nor a run\n")
    run, extract = ["--run", none], ["extract", "--cache", new]
    train = ["train", "--cache", cache, "--run", new]
    return {
        "data set": ([*extract, "--dataset", folder / "none.jsonl"], "none.jsonl: no such file"),
        "teacher": ([*extract, "--teacher", none], "neither a folder"),
        "teacher's folder": ([*extract, "--teacher", other], "no config.json in this folder"),
        "gguf": ([*extract, "--teacher", folder / "none.gguf"], "no such file"),
        "random teacher": ([*extract, "--teacher", "random:x"], "random:SEED:TEACHER"),
        "layer": (
            [*extract, "--layers", "99"],
            "--layers 99: no such layer; choose from 0 (embeddings) to",
        ),
        "layer twice": ([*extract, "--layers", "0,0"], "--layers 0,0"),
        "codec": ([*extract, "--codec", "mp3"], "--codec mp3: no such codec"),
        "codec's layer": ([*extract, "--codec", "5:klt"], "'5' is none of the layers -1"),
        "fidelity": (
            [*extract, "--codec", "klt", "--fidelity", "kl=much"],
            "--fidelity: 'much' is not a number above 0",
        ),
        "bits": ([*extract, "--codec", "klt", "--bits", "40"], "--bits 40: bf16 takes 16"),
        "device": (
            [*extract, "--device", "cuda:9x"],
            "--device cuda:9x: not usable on this machine",
        ),
        "kind of device": (
            [*extract, "--device", "warp"],
            "--device warp: not usable on this machine",
        ),
        "engine": ([*extract, "--workers", "2"], "--workers is for --engine ray"),
        "options that exclude each other": (
            [*extract, "--keep-head", "--teacher-kind", "encoder"],
            "--keep-head",
        ),
        "place for a cache": (
            ["extract", "--cache", other],
            "not a cache (it contains 'notes.txt')",
        ),
        "file as a cache": (
            ["extract", "--cache", other / "notes.txt"],
            "is a file; a cache is a folder",
        ),
        "kind of address": (["extract", "--cache", "gs://bucket/x"], "unknown kind of address"),
        "config file": ([*extract, "--config", none], "does not exist"),
        "cache": (["train", "--cache", none, "--run", new], "no such folder"),
        "place for a run": (["train", "--cache", cache, "--run", other], "exists and is not a run"),
        "student": ([*train, "--student", "huge"], "student huge: neither a size"),
        "student's layer": ([*train, "--layers", "7"], "not layer 7"),
        "heads": ([*train, "--cross-heads", "7"], "--cross-heads 7: do not divide"),
        "task path": (["evaluate", *run, "--task-path", folder / "none"], "does not exist"),
        "new weights": ([*train, "--new-weights"], "has new weights already"),
        "controls": (
            [*train, "--condition", "none", "--controls"],
            "reads no teacher to compare with",
        ),
        "varied layer": (
            ["sweep", "--cache", cache, "--runs", new, "--vary", "layers=-1 7"],
            "not layer 7",
        ),
        "run": (["evaluate", *run], "not a run"),
        "baseline": (["evaluate", "--run", other, "--baselines", "best"], "not a run"),
        "runs": (["evaluate", "--compare", none, other], "not a run"),
        "run that writes": (["generate", *run, "--prompt", "x"], "not a run"),
        "run that chats": (["chat", "--run", other], "not a run"),
        "inspected": (["cache", "inspect", other], "not a cache"),
        "verified": (["cache", "verify", none], "no such folder"),
        "repaired": (["cache", "repair", other], "not a cache"),
        "converted": (["cache", "convert", none, new], "no such folder"),
        "converted into itself": (["cache", "convert", cache, cache], "its own folder"),
        "convert's codec": (
            ["cache", "convert", cache, new, "--codec", "5:klt"],
            "'5' is none of the layers",
        ),
        "compared": (["cache", "fidelity", none], "no such folder"),
    }


def test_wrong_input_is_refused_in_one_line_before_slow_imports(
    small_cache: Path, tmp_path: Path
) -> None:
    for case, (words, line) in wrong_inputs(tmp_path, small_cache).items():
        libraries, printed = imported(*words, folder=tmp_path, status=2)
        assert not libraries & SLOW, case
        assert line in printed, case
        assert len(printed.splitlines()) == 1, case
        assert not (tmp_path / "new").exists(), case


def test_the_benchmark_measures_help_and_wrong_input(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    options = ["--rounds", "1", "--only", "extract --", "--json", path]
    program = [sys.executable, ROOT / "benchmarks" / "start_up.py", *options]
    subprocess.run(program, cwd=tmp_path, capture_output=True, check=True)
    figures = json.loads(path.read_text())
    assert {figure["what"] for figure in figures} == {"help", "wrong input"}
    assert all(figure["status"] == (0 if figure["what"] == "help" else 2) for figure in figures)
    assert not [figure for figure in figures if {*figure["heavy"]} & SLOW]


def test_help_takes_less_than_half_a_second_of_cpu_time() -> None:
    seconds = []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, ROOT / "cli.py", "extract", "--help"], stdout=subprocess.DEVNULL
        )
        used = os.wait4(process.pid, 0)[2]
        seconds.append(used.ru_utime + used.ru_stime)  # CPU time, as other tests run at the time
    assert min(seconds) < 0.5
