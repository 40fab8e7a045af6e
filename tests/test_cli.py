"""The command line as users meet it: bad input gets one clear line and exit status 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_process import run_process
from tests.conftest import ROOT, RunCli, write_rows

COMMANDS = ["extract", "train", "sweep", "evaluate", "generate", "chat", "answer"]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "good.jsonl", [{"question": "Q?", "answer": "A"}] * 3)


def bad_extracts(folder: Path) -> dict[str, tuple[list[object], str]]:
    """Options of extracts that cannot work, each with what its error must say."""
    good = folder / "good.jsonl"
    empty, columns, broken = (
        folder / "empty.jsonl",
        folder / "columns.jsonl",
        folder / "broken.jsonl",
    )
    empty.write_text("")
    bare = folder / "bare"
    bare.mkdir(exist_ok=True)
    write_rows(columns, [{"prompt": "x"}])
    broken.write_text('{"question": "Q", "answer": "A"}\n{"question": "Q", "answer": 3}\n')
    return {
        "missing file": (["--dataset", folder / "none.jsonl"], "none.jsonl: no such file"),
        "wrong column": (["--dataset", columns], "'prompt' fit no known form"),
        "empty data set": (["--dataset", empty], "the data set is empty"),
        "malformed row": (["--dataset", broken], "row 1: field 'answer' is of type int"),
        "no such layer": (["--dataset", good, "--layers", "99"], "--layers 99"),
        "no layer at all": (["--dataset", good, "--layers", "last"], "is not a list of layers"),
        "no such teacher": (["--dataset", good, "--teacher", folder / "none"], "neither a folder"),
        "folder without a model": (
            ["--dataset", good, "--teacher", folder],
            "no config.json in this folder",
        ),
        "no such gguf": (["--dataset", good, "--teacher", folder / "none.gguf"], "no such file"),
        "unknown format": (["--dataset", good, "--format", "csv"], "'csv' is not one of"),
        "unknown codec": (["--dataset", good, "--codec", "mp3"], "--codec mp3: no such codec"),
        "unknown template": (["--dataset", good, "--template", "x"], "'x' is not one of"),
        "limit of nothing": (["--dataset", good, "--limit", "0"], "0 is not in the range"),
        "all too long": (["--dataset", good, "--max-tokens", "2"], "no example is left"),
        "a folder without data": (["--dataset", bare], "no data file in this folder"),
        "broken character": (
            ["--dataset", write_rows(folder / "half.jsonl", [{"text": "\ud83d"}])],
            "is not valid Unicode",
        ),
        "no such device": (["--dataset", good, "--device", "warp"], "--device warp"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "missing file",
        "wrong column",
        "empty data set",
        "malformed row",
        "no such layer",
        "no layer at all",
        "no such teacher",
        "folder without a model",
        "no such gguf",
        "unknown format",
        "unknown codec",
        "unknown template",
        "limit of nothing",
        "all too long",
        "a folder without data",
        "broken character",
        "no such device",
    ],
)
def test_bad_input_to_extract(case: str, good: Path, run_cli: RunCli, tmp_path: Path) -> None:
    options, expected = bad_extracts(tmp_path)[case]
    before = {path.name for path in tmp_path.iterdir()}
    done = run_cli("extract", "--cache", tmp_path / "cache", *options)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == before


def test_bad_input_to_train(run_cli: RunCli, small_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "not-a-cache").mkdir()
    for options, expected in [
        (["--cache", tmp_path / "none"], "no such folder"),
        (["--cache", tmp_path / "not-a-cache"], "not a cache"),
        (["--cache", small_cache, "--student", "huge"], "neither a size"),
        (["--cache", small_cache, "--layers", "7"], "not layer 7"),
        (["--cache", small_cache, "--cross-heads", "7"], "--cross-heads 7: do not divide"),
        (
            ["--cache", small_cache, "--layers", "-1,0,-1"],
            "one for each of the 2 cross-attention layers",
        ),
        (
            ["--cache", small_cache, "--batch-size", "2", "--batch-tokens", "9"],
            "--batch-size and --batch-tokens: use one",
        ),
        (["--cache", small_cache, "--report-to", "clearml"], "--report-to clearml"),
        (
            [
                "--cache",
                small_cache,
                "--freeze",
                "bridge",
                "--freeze",
                "head",
                "--freeze",
                "gpt-neo",
            ],
            "nothing is left to train",
        ),
        (["--cache", small_cache, "--validation", "1.5"], "not in the range"),
        (["--cache", small_cache, "--cross-attention", "sideways"], "is not one of"),
        (["--cache", small_cache, "--device", "warp"], "--device warp"),
        (["--cache", small_cache, "--bridge-lr", "-1"], "not in the range"),
        (["--cache", "s3://bucket"], "write s3://bucket/prefix"),
    ]:
        done = run_cli("train", "--run", tmp_path / "run", *options)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert expected in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "run").exists(), options


@pytest.mark.parametrize("command", [["evaluate"], ["generate", "--prompt", "x"], ["chat"]])
def test_an_unfinished_run_is_refused(command: list[str], run_cli: RunCli, tmp_path: Path) -> None:
    done = run_cli(*command, "--run", tmp_path / "none")
    assert done.returncode == 2
    assert "not a run" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_shared_options(command: str, run_cli: RunCli) -> None:
    done = run_cli(command, "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout
    assert "--json" in done.stdout
    assert "--debug" in done.stdout
    assert "--config" in done.stdout


def test_help_lists_every_command_without_loading_the_models() -> None:
    program = (
        "import sys; sys.argv = ['cli', '--help']; from cli import main\ntry: main()\nfinally:"
        " assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize(
    "typed, offered",
    [
        ("tr", ["train"]),
        ("", [*COMMANDS, "cache"]),
        ("cache ver", ["verify"]),
        ("--v", ["--version"]),
    ],
)
def test_the_shell_completes_commands_without_loading_the_models(
    typed: str, offered: list[str]
) -> None:
    words = ["llm-modules", *typed.split(" ")]
    environment = {
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
        "_CLI_PY_COMPLETE": "bash_complete",
    }
    code = (
        "import sys; sys.argv = ['cli.py']; from pipeline.commands import main\n"
        "try: main(prog_name='cli.py')\n"
        "finally: assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert sorted(done.stdout.split()) == sorted(f"plain,{word}" for word in offered), done.stderr


def started(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`python cli.py …`, as a user starts it."""
    return subprocess.run(
        list(map(str, [sys.executable, ROOT / "cli.py", *arguments])),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_console_script_is_the_same_program() -> None:
    script = Path(sys.executable).parent / "llm-modules"
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.splitlines()[1:] == started("--help").stdout.splitlines()[1:]


@pytest.mark.parametrize(
    "words",
    [["fly"], ["extract"], ["extract", "--cache"], ["train", "--epochs", "many"], ["--wings"]],
)
def test_wrong_usage_gets_one_line(words: list[str], run_cli: RunCli) -> None:
    done = run_cli(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "--help" in done.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["extrct"], "error: No such command 'extrct'. Did you mean 'extract'? See `"),
        (["cache", "inspekt"], "error: No such command 'inspekt'. Did you mean 'inspect'? See `"),
        (
            ["cache", "repair", "x", "--devise", "cpu"],
            "error: No such option '--devise'. Did you mean '--device'? See `",
        ),
        (["fly"], "error: No such command 'fly'; see `"),
    ],
)
def test_the_nearest_name_is_suggested(words: list[str], line: str, run_cli: RunCli) -> None:
    assert run_cli(*words).stderr.startswith(line)


def test_an_empty_prompt_is_refused(run_cli: RunCli, tmp_path: Path) -> None:
    done = run_cli("generate", "--run", tmp_path, "--prompt", " ")
    assert (done.returncode, done.stderr) == (2, "error: --prompt: is empty; ask something\n")


def test_bad_input_to_the_script_gets_one_line(tmp_path: Path) -> None:
    done = started("train", "--cache", tmp_path, "--run", tmp_path / "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = run_process("train", "--cache", tmp_path, "--run", tmp_path / "run", "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_results_go_to_stdout_and_progress_to_stderr(
    run_cli: RunCli, good: Path, tmp_path: Path
) -> None:
    done = run_cli("extract", "--cache", tmp_path / "cache", "--dataset", good, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {
        "examples",
        "left_out",
        "tokens",
        "bytes",
        "seconds",
        "tokens_per_second",
    } <= result.keys()
    assert result["examples"] == 3
