"""The first second: help and refusals of wrong input come before any library that takes long to
load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_help import NAMES

LIGHT = {
    "_yaml", "cache", "cli", "click", "cloup", "cython_runtime", "pipeline", "typing_extensions", "xxhash", "yaml",
}  # fmt: skip
"""What help may import beside Python's own modules; whatever else is wanted there has to be argued
for here."""
SLOW = (
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "pyarrow",
    "h5py",
    "zarr",
    "matplotlib",
    "pandas",
    "scipy",
    "sympy",
)
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
    """Libraries that a command has imported when it ends, and what it has printed."""
    path = folder / "imported"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)], cwd=ROOT, env=os.environ | {"IMPORTED": str(path)} | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    libraries = {name.partition(".")[0] for name in path.read_text().split()}
    libraries = {
        name for name in libraries if not name.startswith("_cython_")
    }  # of yaml, its release in the name
    return libraries - sys.stdlib_module_names, done.stdout + done.stderr


@pytest.mark.parametrize("name", [*GROUPS, *NAMES])
def test_help_imports_nothing_slow(name: str, tmp_path: Path) -> None:
    for flag in ("--help", "-h"):
        found, printed = imported(*name.split()[1:], flag, folder=tmp_path, status=0)
        assert found <= LIGHT
        assert printed.startswith(f"Usage: {name} ")


@pytest.mark.parametrize(
    "words, status",
    [([], 2), (["--version"], 0), (["extrct"], 2), (["extract", "--form", "none"], 2)],
)
def test_so_do_other_first_words(words: list[str], status: int, tmp_path: Path) -> None:
    found, _ = imported(*words, folder=tmp_path, status=status)
    assert found <= LIGHT


def test_completion_of_options_imports_nothing_slow(tmp_path: Path) -> None:
    asked = {
        "COMP_WORDS": "llm-modules extract --temp",
        "COMP_CWORD": "2",
        "_LLM_MODULES_COMPLETE": "bash_complete",
    }
    found, printed = imported(folder=tmp_path, status=0, **asked)
    assert found <= LIGHT
    assert printed.split() == ["plain,--template"]


def wrong_inputs(folder: Path, cache: Path) -> dict[str, tuple[list[object], str]]:
    """Commands that name what is not there, something else, or a value that cannot be; with what is
    to be said of it."""
    none, other, new = folder / "none", folder / "other", folder / "new"
    other.mkdir(exist_ok=True)
    (other / "notes.txt").write_text("neither a cache nor a run\n")
    run, extract, train = (
        ["--run", none],
        ["extract", "--cache", new],
        ["train", "--cache", cache, "--run", new],
    )
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
        "place for a cache": (["extract", "--cache", other], "not a cache (it holds 'notes.txt')"),
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


def test_wrong_input_is_refused_in_a_line_before_anything_slow_is_imported(
    small_cache: Path, tmp_path: Path
) -> None:
    for case, (words, line) in wrong_inputs(tmp_path, small_cache).items():
        found, printed = imported(*words, folder=tmp_path, status=2)
        assert not found & {*SLOW}, case
        assert line in printed, case
        assert len(printed.splitlines()) == 1, case
        assert not (tmp_path / "new").exists(), case


def test_the_benchmark_measures_each_of_them(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    program = [
        sys.executable,
        ROOT / "benchmarks" / "start_up.py",
        "--rounds",
        "1",
        "--only",
        "extract --",
        "--json",
        path,
    ]
    subprocess.run(program, cwd=tmp_path, capture_output=True, check=True)
    figures = json.loads(path.read_text())
    assert {figure["what"] for figure in figures} == {"help", "wrong input"}
    assert all(figure["status"] == (0 if figure["what"] == "help" else 2) for figure in figures)
    assert not [figure for figure in figures if {*figure["heavy"]} & {*SLOW}]


def test_help_takes_less_than_half_a_second() -> None:
    took = []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, ROOT / "cli.py", "extract", "--help"], stdout=subprocess.DEVNULL
        )
        used = os.wait4(process.pid, 0)[2]
        took.append(used.ru_utime + used.ru_stime)  # of the processor, which other tests use too
    assert min(took) < 0.5
