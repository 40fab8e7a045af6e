"""Sources of teachers: files of the hub's client, and incomplete folders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.errors import InputError
from pipeline.teacher.load import load_teacher
from pipeline.teacher.source import find_teacher
from pipeline.teacher.verified_load import load_verified_teacher
from tests.cli_process import ROOT
from tests.conftest import RunCli

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def hub_with_the_embedded_teacher(folder: Path) -> Path:
    """Create the hub client's folder as after a download of `someone/small`."""
    stored = folder / "models--someone--small"
    shutil.copytree(EMBEDDED_TEACHER, stored / "snapshots" / COMMIT)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(COMMIT)
    return folder


def extract_from_hub(hub: Path, teacher: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """Extract in a new process, as the hub's client reads its environment only once."""
    command = [
        *("extract", "--teacher", teacher, "--cache", cache),
        *("--limit", "3", "--device", "cpu", "--dtype", "fp32", "--json"),
    ]
    environment = os.environ | {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, ROOT / "cli.py", *command],
        env=environment,
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
    )


def test_a_teacher_by_hub_id_is_pinned_to_its_commit(tmp_path: Path) -> None:
    hub = hub_with_the_embedded_teacher(tmp_path / "hub")
    done = extract_from_hub(hub, "someone/small", tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "cache" / "manifest.json").read_text())
    assert manifest["identity"]["teacher_weights"] == f"commit:{COMMIT}"
    assert manifest["provenance"]["teacher"] == f"someone/small@{COMMIT}"
    again = extract_from_hub(hub, f"someone/small@{COMMIT}", tmp_path / "cache")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["content_digest"] == json.loads(done.stdout)["content_digest"]


def test_an_unknown_hub_id_is_a_one_line_error(tmp_path: Path) -> None:
    done = extract_from_hub(
        hub_with_the_embedded_teacher(tmp_path / "hub"), "someone/else", tmp_path / "cache"
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: teacher someone/else: the ")
    assert not (tmp_path / "cache").exists()


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"no config\.json in this folder; name one that"):
        find_teacher(str(tmp_path)).load_config()


def test_the_error_for_a_moved_teacher_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"neither a folder .*; if it has moved, name it with --teacher$"
    ):
        load_verified_teacher(str(tmp_path / "gone"), [-1], {}, torch.device("cpu"))


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    shutil.copytree(EMBEDDED_TEACHER, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    for with_lm_head in (False, True):
        with pytest.raises(InputError, match="the weights cannot be loaded"):
            load_teacher(
                find_teacher(str(folder)),
                (-1,),
                torch.device("cpu"),
                "fp32",
                with_lm_head=with_lm_head,
            )


def test_a_random_teacher_without_a_name_is_the_embedded_one(
    run_cli: RunCli, tmp_path: Path
) -> None:
    digests = []
    for number, name in enumerate(("random:4", f"random:4:{EMBEDDED_TEACHER}")):
        cache = tmp_path / str(number)
        options = ("--limit", 2, "--device", "cpu", "--cache", cache, "--json")
        done = run_cli("extract", "--teacher", name, *options)
        assert done.returncode == 0, done.stderr
        digests.append(json.loads(done.stdout)["content_digest"])
        manifest = json.loads((cache / "manifest.json").read_text())
        assert manifest["identity"]["teacher_weights"] == "random:4"
    assert digests[0] == digests[1]
