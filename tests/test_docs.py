"""Documentation: commands and options exist, the tutorial runs, links resolve, pages build."""

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
PROGRAM = ("llm-modules ", "python cli.py ", "cli.py ")


def code_of(page: Path) -> Iterator[str]:
    """Yield the lines of a page's fenced blocks."""
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = not inside
        elif inside:
            yield line


def commands_of(lines: Iterable[str]) -> Iterator[str]:
    """Yield every call of this program."""
    for line in lines:
        call = re.sub(r"^torchrun .*?(?=cli\.py)", "", line.strip())
        if call.startswith(PROGRAM):
            yield call


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


def test_commands_are_collected_from_pages_and_help() -> None:
    assert len(COMMANDS) > 80
    assert {page for page, _ in COMMANDS} >= {
        "README.md",
        "docs/tutorial.md",
        "docs/how-to/ray.md",
        "llm-modules sweep --help",
    }


@pytest.mark.parametrize("page, line", COMMANDS)
def test_documented_commands_and_options_exist(page: str, line: str) -> None:
    """Check the command, its subcommand, and every option before a comment or pipe."""
    words = shlex.split(line, comments=True)
    words = words[
        : next((place for place, word in enumerate(words) if word in ("|", ">", "&&")), len(words))
    ]
    words = words[2 if words[0] == "python" else 1 :]
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        subcommand = command.get_command(click.Context(command), words.pop(0))
        assert subcommand is not None, f"{page}: {line}"
        command = subcommand
    options = {
        name for option in command.params for name in (*option.opts, *option.secondary_opts)
    } | {"--help", "-h", "--version"}
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in options, f"{page}: {line}: {word}"


@pytest.mark.timeout(900)
def test_the_tutorial_runs_as_written(tmp_path: Path) -> None:
    """Run all blocks in one shell, in an empty folder, with this interpreter's `llm-modules`."""
    code = re.findall(
        r"```(sh|python)\n(.*?)```",
        (ROOT / "docs/tutorial.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert len(code) >= 7
    blocks = [block if kind == "sh" else f"python - <<'END'\n{block}END\n" for kind, block in code]
    programs = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    process = subprocess.run(
        ["bash", "-e", "-c", "\n".join(blocks)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert re.search(r"^(Transferred|No transfer shown)", process.stdout, re.MULTILINE), (
        process.stdout
    )
    assert (tmp_path / "my-run/evaluation/report.html").exists()
    assert (tmp_path / "my-run/train.yaml").exists()


def test_python_blocks_compile_and_their_imports_exist() -> None:
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


def test_links_resolve() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), (
                f"{page.name}: {target}"
            )


def test_code_paths_in_pages_exist() -> None:
    """Check names such as `cache/reader.py`, except in the log, which describes earlier code."""
    paths = {
        (page.name, path)
        for page in PAGES
        if page.name != "LOG.md"
        for path in re.findall(
            r"`((?:cache|pipeline|tests|benchmarks|docs)/[\w./-]*)`",
            page.read_text(encoding="utf-8"),
        )
    }
    assert len(paths) > 60
    placeholders = {pair for pair in paths if "yours" in pair[1]}
    assert [pair for pair in sorted(paths - placeholders) if not (ROOT / pair[1]).exists()] == []


def test_the_map_names_every_package() -> None:
    page = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    tree = page[: page.index("| Where is")]
    packages = {
        folder.parent.relative_to(ROOT)
        for top in ("cache", "pipeline")
        for folder in (ROOT / top).glob("*/__init__.py")
    }
    assert len(packages) > 15
    assert sorted(str(folder) for folder in packages if f"  {folder.name}/ " not in tree) == []


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


def test_pages_build_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    sphinx = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    process = subprocess.run(
        [*sphinx, "-d", tmp_path / "trees", ROOT / "docs", tmp_path / "html"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    reference = (tmp_path / "html/reference/command-line.html").read_text()
    assert "--batch-tokens" in reference and "--fidelity" in reference
    assert "hidden_states" in (tmp_path / "html/reference/python.html").read_text()
