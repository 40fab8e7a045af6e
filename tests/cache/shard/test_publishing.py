"""Publishing: a cache is complete or refused, and other files are never touched."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cache import CacheError, open_cache, write_cache
from cache.containers import CONTAINER_NAMES
from cache.journal import begin_journal
from tests.cache.examples import make_cache, make_content, make_examples, make_manifest

SHARDS = [make_examples([5, 3]), make_examples([4], seed=1), make_examples([7, 1], seed=2)]


@pytest.fixture
def attachments(tmp_path: Path) -> Path:
    folder = tmp_path / "attachments"
    folder.mkdir()
    (folder / "note.txt").write_text("hello")
    return folder


def begin(root: Path, attachments: Path, shards: int, container: str = "zarr") -> None:
    """Publish only the first shards."""
    with write_cache(root, make_manifest(SHARDS, container), attachments) as writer:
        for shard in range(shards):
            writer.publish(shard, make_content(SHARDS[shard]))


@pytest.mark.parametrize("published", [0, 1, 2])
def test_an_incomplete_cache_is_refused(published: int, tmp_path: Path, attachments: Path) -> None:
    begin(tmp_path / "c", attachments, published)
    with pytest.raises(CacheError, match=f"not complete \\({published} of 3 shards\\)"):
        open_cache(tmp_path / "c")


@pytest.mark.parametrize("container", CONTAINER_NAMES)
def test_a_resumed_cache_has_the_digest_of_an_uninterrupted_one(
    container: str, tmp_path: Path, attachments: Path
) -> None:
    whole = open_cache(make_cache(tmp_path / "whole", SHARDS, container)).content_digest
    begin(tmp_path / "c", attachments, 1, container)
    with write_cache(tmp_path / "c", make_manifest(SHARDS, container), attachments) as writer:
        assert writer.missing_shards() == [1, 2]
        for shard in (2, 1):
            writer.publish(shard, make_content(SHARDS[shard]))
    assert open_cache(tmp_path / "c").content_digest == whole


def test_unfinished_shards_of_a_dead_writer_do_not_exist(tmp_path: Path, attachments: Path) -> None:
    root = tmp_path / "c"
    begin(root, attachments, 1)
    (root / "shards" / "partial-000001.zarr").mkdir()
    (root / "shards" / "000001.zarr").mkdir()  # renamed, but not in the journal
    with (root / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"shard": 1, "digest": "ab')
    with write_cache(root, make_manifest(SHARDS), attachments) as writer:
        assert writer.missing_shards() == [1, 2]
        for shard in (1, 2):
            writer.publish(shard, make_content(SHARDS[shard]))
    assert len(open_cache(root)) == 5


@pytest.mark.parametrize("existing", [[], ["attachments"], ["attachments", "shards"]])
def test_a_cache_without_a_manifest_is_begun_again(
    existing: list[str], tmp_path: Path, attachments: Path
) -> None:
    root = tmp_path / "c"
    root.mkdir()
    begin_journal(root, make_manifest(SHARDS))
    for name in existing:
        (root / name).mkdir()
    begin(root, attachments, 3)
    assert len(open_cache(root)) == 5


@pytest.mark.parametrize("name", ["shards", "attachments"])
def test_other_folders_are_not_touched_whatever_their_names(
    name: str, tmp_path: Path, attachments: Path
) -> None:
    (tmp_path / "c" / name).mkdir(parents=True)
    (tmp_path / "c" / name / "webdataset-000.tar").write_text("do not lose me")
    with pytest.raises(CacheError, match=f"it contains '{name}'"):
        begin(tmp_path / "c", attachments, 1)
    assert (tmp_path / "c" / name / "webdataset-000.tar").exists()


@pytest.mark.parametrize(
    "lost", ["manifest", "manifest and journal", "manifest and all lines", "manifest and one line"]
)
def test_a_cache_that_lost_its_manifest_is_not_begun_again(
    lost: str, tmp_path: Path, attachments: Path
) -> None:
    root = tmp_path / "c"
    begin(root, attachments, 1)
    (root / "manifest.json").unlink()
    journal = root / "journal.jsonl"
    if lost == "manifest and journal":
        journal.unlink()
    elif lost != "manifest":
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(
            lines[0] if lost == "manifest and all lines" else lines[0] + b"x" + lines[1]
        )
    with pytest.raises(CacheError):
        begin(root, attachments, 3)
    assert (root / "shards" / "000000.zarr").is_dir()


def test_another_identity_is_refused_with_field_and_both_values(
    tmp_path: Path, attachments: Path
) -> None:
    begin(tmp_path / "c", attachments, 1)
    other = make_manifest(SHARDS, teacher_weights="sha256:2")
    with pytest.raises(CacheError, match="teacher_weights was 'sha256:1', now it is 'sha256:2'"):  # noqa: SIM117
        with write_cache(tmp_path / "c", other, attachments):
            pass


def test_a_folder_with_other_files_is_not_touched(tmp_path: Path, attachments: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.tex").write_text("do not lose me")
    with pytest.raises(CacheError, match=r"thesis\.tex"):  # noqa: SIM117
        with write_cache(tmp_path / "c", make_manifest(SHARDS), attachments):
            pass
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["thesis.tex"]


def test_a_second_writer_is_refused_and_a_dead_one_does_not_block(
    tmp_path: Path, attachments: Path
) -> None:
    root = tmp_path / "c"
    program = textwrap.dedent(f"""
        import sys, time; from pathlib import Path
        from cache import write_cache
        from tests.cache.shard.test_publishing import SHARDS, make_manifest
        with write_cache(Path({str(root)!r}), make_manifest(SHARDS), Path({str(attachments)!r})):
            print("writing", flush=True); time.sleep(60)
    """)
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "writing\n"
    with pytest.raises(CacheError, match="another process is writing"):
        begin(root, attachments, 1)
    holder.kill()
    holder.wait()
    begin(root, attachments, 3)
    assert len(open_cache(root)) == 5


def test_folders_without_a_cache_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no such folder"):
        open_cache(tmp_path / "nowhere")
    with pytest.raises(CacheError, match="not a cache"):
        open_cache(tmp_path)
