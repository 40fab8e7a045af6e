"""Commands work with closed, full and unread streams, other encodings, and missing folders."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.commands.checks import utf8_text
from pipeline.errors import InputError
from tests.conftest import ROOT

C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NOISE = (
    "Traceback",
    "Exception ignored",
    "Broken pipe",
    "repeat the command",
    "unexpected",
)


def shell(
    line: str, *, folder: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash, in which $CLI is the command."""
    command = {"CLI": f"{sys.executable} {ROOT / 'cli.py'}"}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("LC_ALL", "PYTHONIOENCODING", "COLUMNS")
    }
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=folder,
        env=kept | command | environment,
        capture_output=True,
        timeout=120,
        check=False,
    )


def quiet(done: subprocess.CompletedProcess[bytes]) -> bool:
    return not any(noise.encode() in done.stdout + done.stderr for noise in NOISE)


@pytest.fixture
def strange_cache(small_cache: Path, tmp_path: Path) -> Path:
    """Return a cache whose path has characters outside Latin-1 and ASCII."""
    return Path(shutil.copytree(small_cache, tmp_path / "größe–数"))


@pytest.mark.parametrize("coding", ["ascii", "latin-1", "utf-8", "cp1252", "ascii:strict"])
def test_text_is_shown_in_any_encoding(coding: str, strange_cache: Path) -> None:
    for words in ("", "--json", "--options"):
        done = shell(f"$CLI cache inspect {strange_cache} {words}", PYTHONIOENCODING=coding)
        assert quiet(done), done.stderr
        if words == "--json":
            assert json.loads(done.stdout)["cache"] == str(strange_cache)
    assert (
        b"(complete)"
        in shell(f"$CLI cache inspect {strange_cache}", PYTHONIOENCODING=coding).stdout
    )


def test_options_are_printed_as_the_config_reads_them(tmp_path: Path) -> None:
    cache, again = tmp_path / "größe", tmp_path / "again"
    made = shell(f"$CLI extract --cache {cache} --limit 3 --device cpu --dtype fp32")
    assert made.returncode == 0, made.stderr
    options = tmp_path / "options.yaml"
    assert (
        shell(
            f"$CLI cache inspect {cache} --options > {options}", PYTHONIOENCODING="latin-1"
        ).returncode
        == 0
    )
    assert "größe" in options.read_text(encoding="utf-8")
    planned = shell(f"$CLI extract --config {options} --cache {again} --plan --json")
    assert planned.returncode == 0, planned.stderr


def test_file_names_work_in_the_c_locale(strange_cache: Path, tmp_path: Path) -> None:
    done = shell(f"$CLI cache inspect {strange_cache} --json", **C_LOCALE)
    assert (done.returncode, quiet(done)) == (0, True), done.stderr
    assert json.loads(done.stdout)["complete"]
    made = shell(
        "$CLI extract --cache 'größe' --limit 3 --device cpu --dtype fp32",
        folder=tmp_path,
        **C_LOCALE,
    )
    assert (made.returncode, quiet(made)) == (0, True), made.stderr
    assert (tmp_path / "größe" / "manifest.json").is_file()


def test_paths_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    done = shell("$CLI cache inspect $'gr\\xf6sse'", folder=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert b"gr\xf6sse: no such folder" in done.stderr


def test_command_line_text_is_utf8_in_any_locale() -> None:
    assert utf8_text("grün".encode().decode("ascii", "surrogateescape"), "--prompt") == "grün"
    assert utf8_text(None, "--system") is None
    with pytest.raises(InputError, match="--prompt: has bytes that are not UTF-8"):
        utf8_text("gr\udcfcn", "--prompt")


@pytest.mark.parametrize("reader", ["true", "head -n 1", "head -c 3"])
@pytest.mark.parametrize(
    "words",
    ["cache inspect {}", "cache inspect {} --json", "cache verify {}", "extract --help", "--help"],
)
def test_a_reader_that_closes_early_is_no_error(words: str, reader: str, small_cache: Path) -> None:
    line = f"$CLI {words.format(small_cache)}"
    for piped in (f"{line} | {reader}", f"{line} 2>&1 >/dev/null | {reader}"):
        done = shell(piped)
        assert (done.returncode, quiet(done), done.stderr) == (0, True, b"")


def test_work_is_completed_without_a_reader(tmp_path: Path) -> None:
    done = shell(
        f"$CLI extract --cache {tmp_path / 'c'} --limit 3 --device cpu --dtype fp32 2>&1 | true"
    )
    assert (done.returncode, quiet(done)) == (0, True)
    assert shell(f"$CLI cache verify {tmp_path / 'c'}").returncode == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(closed: str, small_cache: Path) -> None:
    done = shell(f"$CLI cache verify {small_cache} {closed}")
    assert (done.returncode, done.stderr, quiet(done)) == (0, b"", True)
    failed = shell(f"$CLI cache verify {small_cache / 'none'} {closed}")
    assert (failed.returncode, quiet(failed)) == (2, True)


def test_output_to_closed_streams_never_ends_up_in_files(tmp_path: Path) -> None:
    cache = tmp_path / "c"
    assert (
        shell(
            f"$CLI extract --cache {cache} --limit 3 --device cpu --dtype fp32 <&- >&- 2>&-"
        ).returncode
        == 0
    )
    assert shell(f"$CLI cache verify {cache}").returncode == 0


@pytest.mark.parametrize("words", ["cache inspect {}", "cache inspect {} --json", "--help"])
def test_a_full_disk_under_stdout_is_reported_once(words: str, small_cache: Path) -> None:
    done = shell(f"$CLI {words.format(small_cache)} > /dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: the disk is full")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("columns", ["0", "1", "7", "many"])
def test_terminals_of_any_width_work(columns: str, small_cache: Path) -> None:
    for words in ("extract --help", "--help", f"cache inspect {small_cache}"):
        done = shell(f"$CLI {words}", COLUMNS=columns, TERM="dumb", NO_COLOR="1")
        assert (done.returncode, done.stderr, b"\x1b" in done.stdout) == (0, b"", False)


def test_a_hung_up_terminal_does_not_stop_the_work(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    options = ["--limit", "3", "--device", "cpu", "--dtype", "fp32"]
    process = subprocess.Popen(
        [sys.executable, ROOT / "cli.py", "extract", "--cache", tmp_path / "c", *options],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    os.close(theirs)
    os.close(ours)
    assert process.wait(timeout=120) == 0
    assert shell(f"$CLI cache verify {tmp_path / 'c'}").returncode == 0


def test_commands_work_in_a_removed_folder_and_without_a_home(tmp_path: Path) -> None:
    remove_folder = "mkdir gone; cd gone; rmdir ../gone;"
    for words, status in (
        ("--help", 0),
        ("extract --cache c", 2),
        ("cache inspect c", 2),
        ("extract --help", 0),
    ):
        done = shell(f"{remove_folder} $CLI {words}", folder=tmp_path)
        assert (done.returncode, b"Traceback" in done.stderr) == (status, False), done.stderr
        assert len(done.stderr.splitlines()) == (status == 2)
    for words, status in (
        ("--help", 0),
        ("cache inspect s3://bucket", 2),
        ("cache inspect none", 2),
    ):
        done = shell(f"unset HOME; $CLI {words}", folder=tmp_path)
        assert (done.returncode, b"Traceback" in done.stderr) == (status, False), done.stderr
