"""Sdist and wheel build and are complete; the installed wheel works without the repository."""

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
    """Return a folder with an sdist and the wheel built from it, from a copy of the sources."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in SHIPPED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    process = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return out


def test_the_wheel_contains_all_code_and_data_but_no_tests(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [
        path
        for room in ("cache", "pipeline")
        for path in (ROOT / room).rglob("*")
        if path.is_file()
    ]
    expected = {
        path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts
    }
    assert expected | {"cli.py"} <= names
    assert not any(name.startswith(("tests", "benchmarks", "docs")) for name in names)


def test_the_sdist_contains_licence_readme_and_templates(built: Path) -> None:
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


def test_the_metadata_lists_python_releases_and_extras(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    (name,) = (file for file in archive.namelist() if file.endswith("/METADATA"))
    metadata = email.message_from_bytes(archive.read(name))
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert metadata["Requires-Python"] == setup["options"]["python_requires"]
    assert set(metadata.get_all("Provides-Extra") or ()) == set(setup["options.extras_require"])
    releases = {
        f"Programming Language :: Python :: {release}" for release in ("3.11", "3.12", "3.13")
    }
    assert releases <= set(metadata.get_all("Classifier") or ())


def test_the_installed_wheel_extracts_outside_the_repository(built: Path, tmp_path: Path) -> None:
    """Install the wheel alone into an empty folder, and run it from another one."""
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
    print_locations = [
        sys.executable,
        "-c",
        "import cache, cli, pipeline; print(*(m.__file__ for m in (cache, cli, pipeline)))",
    ]
    locations = subprocess.run(
        print_locations, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert all(Path(path).is_relative_to(site) for path in locations)
    command = [sys.executable, script, "extract", "--cache", "my-cache", "--limit", "3", "--json"]
    process = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["examples"] == 3
    assert (tmp_path / "my-cache/manifest.json").exists()
