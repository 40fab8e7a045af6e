"""What is shipped is whole: sdist and wheel build, and the wheel works from anywhere, without the
repository."""

from __future__ import annotations

import email
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.conftest import ROOT

SHIPPED = ("cache", "pipeline", "cli.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist, and a wheel made from it, built from a copy of what is shipped."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in SHIPPED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_wheel_holds_all_code_and_data_and_no_tests(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = [
        path
        for room in ("cache", "pipeline")
        for path in (ROOT / room).rglob("*")
        if path.is_file()
    ]
    wanted = {path.relative_to(ROOT).as_posix() for path in ours if "__pycache__" not in path.parts}
    assert wanted | {"cli.py"} <= names
    assert not any(name.startswith(("tests", "benchmarks", "docs")) for name in names)


def test_the_sdist_builds_the_wheel_and_has_licence_and_readme(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "LICENSE",
        "README.md",
        "setup.cfg",
        "pyproject.toml",
        "pipeline/report/page.html",
    } <= names


def test_the_metadata_name_python_and_the_extras(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    (name,) = (each for each in archive.namelist() if each.endswith("/METADATA"))
    told = email.message_from_bytes(archive.read(name))
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert told["Requires-Python"] == setup["options"]["python_requires"]
    assert set(told.get_all("Provides-Extra") or ()) == set(setup["options.extras_require"])
    releases = {
        f"Programming Language :: Python :: {release}" for release in ("3.11", "3.12", "3.13")
    }
    assert releases <= set(told.get_all("Classifier") or ())


def test_installed_it_extracts_from_anywhere(built: Path, tmp_path: Path) -> None:
    """The wheel alone, in a folder of its own before everything else, run far from the
    repository."""
    (wheel,) = built.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--target",
            site,
            wheel,
        ],
        check=True,
    )
    environment = os.environ | {"PYTHONPATH": str(site)}
    script = next(path for path in site.glob("bin/llm-modules*"))
    where = [
        sys.executable,
        "-c",
        "import cache, cli, pipeline; print(*(m.__file__ for m in (cache, cli, pipeline)))",
    ]
    found = subprocess.run(
        where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert all(Path(path).is_relative_to(site) for path in found)
    command = [sys.executable, script, "extract", "--cache", "my-cache", "--limit", "3", "--json"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["examples"] == 3
    assert (tmp_path / "my-cache/manifest.json").exists()
