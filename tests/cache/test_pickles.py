"""No pickle is read, neither from intact caches nor from malicious ones."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from cache.files import checksum_of
from tests.cache.examples import make_cache, make_shards, rewrite_manifest, rewrite_record
from tests.conftest import ROOT

SHARDS = make_shards([[5, 3]])
READ_ALL = """
import pickle, sys
from pathlib import Path

def refuse(event, arguments):
    if event == "pickle.find_class":
        print("unpickled", *arguments[:2], flush=True)

from cache import CacheError, open_cache
from cache.upkeep.verify import verify_cache

sys.addaudithook(refuse)
for root in map(Path, sys.argv[1:]):
    try:
        with open_cache(root) as cache:
            print(len(cache), [cache.text(i) for i in range(len(cache))], len(list(cache)))
    except CacheError as error:
        print("refused", error)
    try:
        print("whole" if verify_cache(root).whole else "damaged")
    except CacheError as error:
        print("refused", error)
if "--control" in sys.argv:
    pickle.loads(pickle.dumps(Path()))
"""


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self._mark,)


def read_in_a_process(*arguments: object) -> str:
    process = subprocess.run(
        [sys.executable, "-c", READ_ALL, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_reading_whole_caches_unpickles_nothing(tmp_path: Path) -> None:
    roots = [
        make_cache(tmp_path / f"{container}-{codec}", SHARDS, container, codec=codec)
        for container, codec in [("zarr", "bf16"), ("zarr", "klt"), ("hdf5", "int8")]
    ]
    output = read_in_a_process(*roots)
    assert output.count("whole") == len(roots)
    assert "unpickled" not in output and "refused" not in output


def test_the_audit_hook_sees_a_pickle(tmp_path: Path) -> None:
    root = make_cache(tmp_path / "c", SHARDS, "hdf5")
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            READ_ALL.replace("sys.argv[1:]", "sys.argv[1:2]"),
            root,
            "--control",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "unpickled" in process.stdout


def as_shard(root: Path, content: bytes) -> None:
    (root / "shards" / "000000.h5").write_bytes(content)


def as_array(root: Path, content: bytes) -> None:
    """Store an array of Python objects, which h5py uses for variable-length bytes."""
    with h5py.File(root / "shards" / "000000.h5", "a") as file:
        del file["input_ids"]
        file.create_dataset("input_ids", data=[content.replace(b"\0", b"")] * 8)


def as_fit(root: Path, content: bytes) -> None:
    (root / "attachments" / "codecs" / "layer-1.safetensors").write_bytes(content)


@pytest.mark.parametrize("put", [as_shard, as_array, as_fit])
def test_a_pickle_in_a_sealed_cache_is_refused_without_being_unpickled(
    put: Callable[[Path, bytes], None], tmp_path: Path
) -> None:
    root, mark = make_cache(tmp_path / "c", SHARDS, "hdf5", codec="klt"), tmp_path / "unpickled"
    content = pickle.dumps(Payload(mark))
    put(root, content)
    shard = root / "shards" / "000000.h5"
    entry = [shard.stat().st_size, checksum_of(shard)]
    rewrite_manifest(
        root,
        lambda manifest: [
            attached.update(
                bytes=(root / attached["name"]).stat().st_size,
                checksum=checksum_of(root / attached["name"]),
            )
            for attached in manifest["attachments"]
        ],
    )
    rewrite_record(root, lambda record: record.update(files={"shards/000000.h5": entry}))
    output = read_in_a_process(root)
    assert "refused" in output and "unpickled" not in output
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists()
