"""The documents: their commands exist with their options (those of `--help` too), the tutorial runs
as it stands, links lead somewhere, pages build."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import pytest

from pipeline.commands import main
from tests.conftest import ROOT
from tests.test_help import every_command

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BEGINNINGS = ("llm-modules ", "python cli.py ", "cli.py ")


def code_of(page: Path) -> Iterator[str]:
    """The lines of a page's fenced blocks."""
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = not inside
        elif inside:
            yield line


def commands_of(lines: Iterable[str]) -> Iterator[str]:
    """Every call of this program among lines."""
    for line in lines:
        called = re.sub(r"^torchrun .*?(?=cli\.py)", "", line.strip())
        if called.startswith(BEGINNINGS):
            yield called


COMMANDS = [
    (page.relative_to(ROOT).as_posix(), line)
    for page in PAGES
    for line in commands_of(code_of(page))
]
COMMANDS += [
    (f"{name} --help", line)
    for name, command in every_command()
    for line in commands_of((command.help or "").splitlines())
]


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 80
    assert {page for page, _ in COMMANDS} >= {
        "README.md",
        "docs/tutorial.md",
        "docs/how-to/ray.md",
        "llm-modules sweep --help",
    }


@pytest.mark.parametrize("page, line", COMMANDS)
def test_what_the_documents_name_exists(page: str, line: str) -> None:
    """The command, its subcommand, and every option before a comment or pipe."""
    words = shlex.split(line, comments=True)
    words = words[
        : next((place for place, word in enumerate(words) if word in ("|", ">", "&&")), len(words))
    ]
    words = words[2 if words[0] == "python" else 1 :]
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None, f"{page}: {line}"
        command = found
    known = {
        name for option in command.params for name in (*option.opts, *option.secondary_opts)
    } | {"--help", "-h", "--version"}
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in known, f"{page}: {line}: {word}"


@pytest.mark.timeout(900)
def test_the_tutorial_runs_as_it_stands(tmp_path: Path) -> None:
    """Its blocks, one after the other, in a shell in an empty folder; `llm-modules` and `python`
    are those that run this test."""
    written = re.findall(
        r"```(sh|python)\n(.*?)```",
        (ROOT / "docs/tutorial.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert len(written) >= 7
    blocks = [
        block if kind == "sh" else f"python - <<'END'\n{block}END\n" for kind, block in written
    ]
    found = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{found}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(blocks)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"^(Transferred|No transfer shown)", done.stdout, re.MULTILINE), done.stdout
    assert (tmp_path / "my-run/evaluation/report.html").exists()
    assert (tmp_path / "my-run/train.yaml").exists()


def test_python_in_the_documents_is_python_and_its_imports_exist() -> None:
    blocks = [
        block
        for page in PAGES
        for block in re.findall(r"^```python\n(.*?)```", page.read_text(), re.DOTALL | re.MULTILINE)
    ]
    assert len(blocks) >= 2
    for block in blocks:
        compile(block, "document", "exec")
        for line in block.splitlines():
            if line.startswith(("from cache", "from pipeline")):
                exec(line, {})


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), (
                f"{page.name}: {target}"
            )


def test_every_page_is_in_the_table_of_contents() -> None:
    pages = {page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in PAGES[1:]} - {
        "index"
    }
    named = set()
    for index in (ROOT / "docs/index.md", ROOT / "docs/how-to/index.md"):
        for block in re.findall(r"```\{toctree\}\n(.*?)```", index.read_text(), re.DOTALL):
            listed = [line for line in block.splitlines() if line and not line.startswith(":")]
            named |= {
                (index.parent / name).relative_to(ROOT / "docs").as_posix() for name in listed
            }
    assert pages <= named


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", tmp_path / "trees", ROOT / "docs",
         tmp_path / "html"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "html/reference/command-line.html").read_text()
    assert "--batch-tokens" in reference and "--fidelity" in reference
    assert "hidden_states" in (tmp_path / "html/reference/python.html").read_text()
