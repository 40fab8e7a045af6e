"""`--config`: options from a file, and the files that repeat what was run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.commands.config_file import options_as_yaml
from pipeline.commands.list_parameters import LayerList
from pipeline.commands.shell import command
from tests.conftest import RunCli, write_rows

SEEN: list[tuple[dict[str, Any], str]] = []


@click.command()
@click.option("--cache", required=True)
@click.option("--layers", type=LayerList(), default="-1")
@click.option("--batch-tokens", type=click.IntRange(min=1), default=8)
@click.option("--rate", type=float, default=0.5)
@click.option("--codec", multiple=True)
@click.option("--keep-head", is_flag=True)
@click.option("--sharing/--no-sharing", default=True)
@command
def shown(**given: Any) -> dict[str, Any]:
    """What the command was given, and the file that repeats it."""
    SEEN.append(
        ({name: value for name, value in given.items() if name != "as_json"}, options_as_yaml())
    )
    return {}


@pytest.fixture(autouse=True)
def nothing_seen() -> Iterator[None]:
    SEEN.clear()
    yield


def invoked(*words: object) -> Any:
    return CliRunner().invoke(shown, [str(word) for word in words], standalone_mode=False)


YAML = """
cache: c
layers: [-1, 0]
batch_tokens: 16
codec: [klt, "0:bf16"]
keep-head: true
sharing: false
"""
TOML = """
cache = "c"
layers = "-1,0"
batch-tokens = 16
codec = ["klt", "0:bf16"]
keep-head = true
sharing = false
"""


@pytest.mark.parametrize("name, text", [("c.yaml", YAML), ("c.toml", TOML)])
def test_the_command_line_overrides_a_file(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    result = invoked("--config", path, "--rate", "2", "--batch-tokens", 32)
    assert result.exception is None
    assert SEEN[0][0] == {
        "cache": "c",
        "layers": (-1, 0),
        "batch_tokens": 32,
        "rate": 2.0,
        "codec": ("klt", "0:bf16"),
        "keep_head": True,
        "sharing": False,
    }


@pytest.mark.parametrize(
    "value", ["-1:2.5", "0:2.5", "010", "2024-99-99", "0x_", "No", "1_000", "1e3", "=", "<<"]
)
def test_yaml_scalars_are_read_as_text(value: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"cache: {value}\ncodec: [{value}]\n")
    assert invoked("--config", tmp_path / "c.yaml").exception is None
    assert (SEEN[0][0]["cache"], SEEN[0][0]["codec"]) == (value, (value,))


@given(
    layers=st.lists(st.integers(-3, 30), min_size=1, max_size=3),
    batch=st.none() | st.integers(1, 10**6),
    rate=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    codec=st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1),
        max_size=3,
    ),
    head=st.booleans(),
    sharing=st.none() | st.booleans(),
    cache=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1),
)
@example(
    layers=[0], batch=None, rate=None, codec=["nullable"], head=False, sharing=None, cache="~0"
)
@example(
    layers=[0],
    batch=None,
    rate=None,
    codec=["false-start"],
    head=False,
    sharing=None,
    cache="true-cache",
)
@example(
    layers=[0], batch=None, rate=None, codec=["\xa0"], head=False, sharing=None, cache="\u2003"
)
def test_a_saved_file_repeats_the_command(
    layers: list[int],
    batch: int | None,
    rate: float | None,
    codec: list[str],
    head: bool,
    sharing: bool | None,
    cache: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    SEEN.clear()
    words = [
        f"--cache={cache}",
        f"--layers={','.join(map(str, layers))}",
        *(f"--codec={each}" for each in codec),
    ]
    words += [] if batch is None else [f"--batch-tokens={batch}"]
    words += [] if rate is None else [f"--rate={rate!r}"]
    words += ["--keep-head"] if head else []
    words += [] if sharing is None else ["--sharing" if sharing else "--no-sharing"]
    assert invoked(*words).exception is None
    path = tmp_path_factory.mktemp("kept") / "kept.yaml"
    path.write_text(SEEN[0][1], encoding="utf-8")
    assert invoked("--config", path).exception is None
    assert SEEN[1] == SEEN[0]


@pytest.mark.parametrize(
    "name, text, expected",
    [
        (
            "c.yaml",
            "batch-token: 4",
            "batch-token is not an option of shown; the nearest is batch-tokens",
        ),
        ("c.yaml", "rate: 1\nrate: 2", "a name occurs twice"),
        ("c.yaml", "batch-tokens: 1\nbatch_tokens: 2", "batch_tokens occurs twice"),
        ("c.yaml", "cache: [a, b]", "cache: takes a text or number"),
        ("c.yaml", "codec: [klt, null]", "codec: takes a text or number, or a list of them"),
        ("c.yaml", "codec: [klt, true]", "codec: takes a text or number, or a list of them"),
        ("c.yaml", "cache: " + "[" * 5000, "cannot be read"),
        ("c.yaml", "cache: !!int 0x_", "cannot be read"),
        ("c.yaml", "nonsense: 4", "nonsense is not an option of shown"),
        ("c.yaml", "config: d.yaml", "config is not an option of shown"),
        ("c.yaml", "- cache", "has no options by name"),
        ("c.yaml", "cache: [", "cannot be read"),
        ("c.toml", "cache = ", "cannot be read"),
        ("c.yaml", "keep-head: maybe", "keep-head: takes true or false"),
        ("c.yaml", "cache: {a: 1}", "cache: takes a text or number"),
        ("c.yaml", "cache: true", "cache: takes a text or number"),
        ("c.yaml", "cache: c\nbatch-tokens: 0", "c.yaml: batch-tokens: 0 is not in the range"),
        ("c.yaml", "cache: c\nlayers: last", "c.yaml: layers: 'last' is not a list of layers"),
        ("c.yaml", "# nothing", "Missing option '--cache'"),
    ],
)
def test_invalid_files_are_refused(name: str, text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    result = invoked("--config", tmp_path / name)
    assert isinstance(result.exception, click.UsageError)
    assert expected in result.exception.format_message()
    assert not SEEN


def test_a_bad_file_gets_one_line_and_status_2(run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("cache: !!int 0x_")
    done = run_cli("extract", "--config", tmp_path / "c.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and "c.yaml" in done.stderr


@pytest.mark.parametrize(
    "file, words, expected",
    [
        (
            "batch-tokens: 4096\nbatch-size: 8",
            [],
            "--batch-size and --batch-tokens: use one of them",
        ),
        (
            "batch-tokens: 4096",
            ["--batch-tokens", 9, "--batch-size", 8],
            "--batch-size and --batch-tokens: use one of them",
        ),
        ("cross-every: 2", [], "--cross-every: with --condition sequence use --cross-layers"),
        (
            "condition: prompt\ncross-layers: 1",
            [],
            "--cross-layers: with --condition prompt use --cross-every",
        ),
        ("batch-tokens: 4096", ["--batch-size", 8], {"batch_size": 8, "batch_tokens": None}),
        ("batch-size: 8", ["--batch-tokens", 4096], {"batch_size": 1, "batch_tokens": 4096}),
        ("cross-layers: 3", ["--condition", "prompt"], {"condition": "prompt", "cross_layers": 2}),
        ("cross-layers: 3\nbaselines: x", [], "baselines is not an option of train"),
    ],
)
def test_the_command_line_overrides_excluding_options_of_a_file(
    file: str,
    words: list[object],
    expected: str | dict[str, object],
    run_cli: RunCli,
    small_cache: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "c.yaml").write_text(file)
    options = ["--cache", small_cache, "--run", tmp_path / "run", "--max-steps", 1, "--json"]
    done = run_cli("train", "--config", tmp_path / "c.yaml", *options, *words)
    if isinstance(expected, str):
        assert (done.returncode, expected in done.stderr) == (2, True), done.stderr
    else:
        assert done.returncode == 0, done.stderr
        settings = yaml.safe_load(done.stdout)["settings"]
        assert {name: settings[name] for name in expected} == expected


def test_controls_trained_later_are_in_the_saved_file(
    run_cli: RunCli, small_cache: Path, tmp_path: Path
) -> None:
    options = ("--cache", small_cache, "--run", tmp_path / "run", "--max-steps", 1)
    assert run_cli("train", *options).returncode == 0
    kept = tmp_path / "run/train.yaml"
    assert "controls" not in yaml.safe_load(kept.read_text())
    assert run_cli("train", *options, "--resume", "--controls").returncode == 0
    assert yaml.safe_load(kept.read_text())["controls"] is True
    assert run_cli("train", *options, "--resume").returncode == 0
    assert yaml.safe_load(kept.read_text())["controls"] is True


def test_saved_files_repeat_an_extract_and_a_run(run_cli: RunCli, tmp_path: Path) -> None:
    rows = write_rows(
        tmp_path / "rows.jsonl",
        [{"question": f"{n} and {n}?", "answer": str(2 * n)} for n in range(12)],
    )
    done = run_cli(
        "extract", "--dataset", rows, "--cache", tmp_path / "a", "--layers", "-1,0", "--json"
    )
    assert done.returncode == 0, done.stderr
    kept = tmp_path / "extract.yaml"
    kept.write_text(run_cli("cache", "inspect", tmp_path / "a", "--options").stdout)
    assert yaml.safe_load(kept.read_text()) == {
        "dataset": str(rows),
        "cache": str(tmp_path / "a"),
        "layers": [-1, 0],
    }
    again = run_cli("extract", "--config", kept, "--cache", tmp_path / "b", "--json")
    assert again.returncode == 0, again.stderr
    digests = [run_cli("cache", "inspect", tmp_path / name, "--json").stdout for name in "ab"]
    assert (
        yaml.safe_load(digests[0])["content_digest"] == yaml.safe_load(digests[1])["content_digest"]
    )
    done = run_cli(
        "train",
        "--cache",
        tmp_path / "a",
        "--run",
        tmp_path / "run",
        "--max-steps",
        2,
        "--batch-size",
        4,
    )
    assert done.returncode == 0, done.stderr
    again = run_cli(
        "train", "--config", tmp_path / "run/train.yaml", "--run", tmp_path / "run-again"
    )
    assert again.returncode == 0, again.stderr
    weights = [
        (tmp_path / run / "model/model.safetensors").read_bytes() for run in ("run", "run-again")
    ]
    assert weights[0] == weights[1]
    done = run_cli("evaluate", "--run", tmp_path / "run", "--samples", 0)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((tmp_path / "run/evaluation/evaluate.yaml").read_text()) == {
        "run": str(tmp_path / "run"),
        "samples": 0,
    }
