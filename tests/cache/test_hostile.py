"""Malicious caches are a `CacheError`: none executes code, leaves its folder or exhausts memory."""

from __future__ import annotations

import contextlib
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import CacheError, DamagedCacheError, open_cache
from cache.files import inside
from cache.journal import read_journal
from cache.manifest import read_manifest
from cache.upkeep.summary import summarise_cache
from cache.upkeep.verify import verify_cache
from tests.cache.examples import make_cache, make_shards, rewrite_manifest, rewrite_record
from tests.cache.test_sealed_json import JSON

SHARDS = make_shards([[5, 3], [4]])


Content = dict[str, Any]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_cache(tmp_path / "c", SHARDS, "hdf5")


def assert_refused(root: Path) -> None:
    """Check that reading raises only CacheError, and allocates little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(CacheError):
            list(open_cache(root))
        with contextlib.suppress(CacheError):
            assert not verify_cache(root).whole
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("field", ["shards", "examples", "tokens", "hidden_size", "vocab_size"])
@pytest.mark.parametrize(
    "value", [-1, True, "3", None, 1 << 32, 1 << 36, 1 << 48, 10**18, 10**400, 0, [], 2.5]
)
def test_absurd_numbers_in_a_manifest_are_refused(field: str, value: object, root: Path) -> None:
    rewrite_manifest(root, lambda content: content.update({field: value}))
    assert_refused(root)


MANIFESTS: dict[str, Callable[[Content], object]] = {
    "no layers": lambda c: c.update(layers=[]),
    "a layer twice": lambda c: c.update(layers=[0, 0]),
    "a layer of text": lambda c: c.update(layers=["../../etc"]),
    "a huge layer": lambda c: c.update(layers=[10**9]),
    "unknown format": lambda c: c.update(format="pickle"),
    "unknown codec": lambda c: c.update(codecs=["pickle", "pickle"]),
    "unknown field": lambda c: c.update(loader="os.system"),
    "field missing": lambda c: c.pop("identity"),
    "other version": lambda c: c.update(version=99),
    "other kind": lambda c: c.update(kind="x"),
    "attachment outside": lambda c: c["attachments"][0].update(name="../outside"),
    "attachment outside through a folder": lambda c: c["attachments"][0].update(
        name="attachments/../../outside"
    ),
    "attachment with an absolute path": lambda c: c["attachments"][0].update(name="/etc/passwd"),
    "attachment without a name": lambda c: c["attachments"][0].pop("name"),
    "attachment with an unknown field": lambda c: c["attachments"][0].update(run="rm"),
    "attachments that are not objects": lambda c: c.update(attachments=[1, 2]),
    "attachment whose size is text": lambda c: c["attachments"][0].update(bytes="5"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_malicious_manifests_are_refused(name: str, root: Path) -> None:
    rewrite_manifest(root, MANIFESTS[name])
    assert_refused(root)


RECORDS: dict[str, Callable[[Content], object]] = {
    "file outside": lambda c: c.update(files={"../outside": [1, "0"]}),
    "file with an absolute path": lambda c: c.update(files={"/etc/passwd": [1, "0"]}),
    "no files": lambda c: c.update(files={}),
    "file without a size": lambda c: c.update(files={name: [None, "0"] for name in c["files"]}),
    "files that are not pairs": lambda c: c.update(files=dict.fromkeys(c["files"], 3)),
    "negative shard": lambda c: c.update(shard=-1),
    "shard twice": lambda c: c.update(shard=1),
    "shard beyond": lambda c: c.update(shard=10**12),
    "length 0": lambda c: c.update(lengths=[0, 8]),
    "negative length": lambda c: c.update(lengths=[-5, 13]),
    "absurd length": lambda c: c.update(lengths=[10**15, 3]),
    "length beyond 64 bits": lambda c: c.update(lengths=[10**30, 3]),
    "lengths of text": lambda c: c.update(lengths=["5", "3"]),
    "lengths in lists": lambda c: c.update(lengths=[[5], [3]]),
    "lengths ragged": lambda c: c.update(lengths=[[5], 3]),
    "other lengths": lambda c: c.update(lengths=[4, 4]),
    "too few lengths": lambda c: c.update(lengths=[8]),
    "row ids are numbers": lambda c: c.update(row_ids=[1, 2]),
    "other row ids": lambda c: c.update(row_ids=["a", "b"]),
    "broken row ids": lambda c: c.update(row_ids=["\ud800", "b"]),
    "checksums that are not hexadecimal": lambda c: c.update(checksums="xyz"),
    "checksums missing": lambda c: c.pop("checksums"),
    "unknown field": lambda c: c.update(loader="os.system"),
    "left out, negative": lambda c: c.update(non_finite={"a": -1}),
    "left out, unknown": lambda c: c.update(non_finite={"a": 7}),
}


@pytest.mark.parametrize("name", RECORDS)
def test_malicious_records_are_refused(name: str, root: Path) -> None:
    rewrite_record(root, RECORDS[name])
    assert_refused(root)


@settings(max_examples=60, deadline=None)
@given(value=JSON, data=st.data())
def test_any_value_in_any_field_is_refused_or_harmless(
    value: object, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = make_cache(tmp_path_factory.mktemp("any") / "c", SHARDS, "hdf5")
    rewrite = data.draw(st.sampled_from([rewrite_manifest, rewrite_record]))
    rewrite(
        root, lambda content: content.update({data.draw(st.sampled_from(sorted(content))): value})
    )
    try:
        examples = list(open_cache(root))
        verify_cache(root)
    except CacheError:
        return
    assert [len(example) for example in examples] == [5, 3, 4]


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"[]", b"{}", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000]
)
@pytest.mark.parametrize("name", ["manifest.json", "journal.jsonl"])
def test_files_without_sealed_json_are_refused(text: bytes, name: str, root: Path) -> None:
    (root / name).write_bytes(text)
    assert_refused(root)


def test_deep_nesting_under_a_valid_seal_is_refused(root: Path) -> None:
    import hashlib

    body = b'{"a":' + b"[" * 200_000 + b"]" * 200_000
    text = body + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}'
    (root / "manifest.json").write_bytes(text)
    with pytest.raises(CacheError, match="nested too deeply"):
        read_manifest(root)


def test_a_manifest_of_gigabytes_is_not_read(root: Path) -> None:
    with (root / "manifest.json").open("r+b") as stream:
        stream.truncate(5 << 30)  # sparse: takes no disk space
    assert_refused(root)


def test_a_journal_line_without_end_is_not_read(root: Path) -> None:
    manifest = read_manifest(root)
    with (root / "journal.jsonl").open("r+b") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(CacheError, match="more than"):
        read_journal(root, manifest)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../../x", "shards/..", "", "a\\b", "./a", "a//../b", "a\0b"]
)
def test_names_cannot_leave_the_cache(name: str, tmp_path: Path) -> None:
    with pytest.raises(CacheError):
        inside(tmp_path, name)


@pytest.mark.parametrize("name", ["manifest.json", "journal.jsonl", "attachments", "shards"])
def test_links_out_of_the_cache_are_refused(name: str, root: Path) -> None:
    (root / name).rename(root.parent / "elsewhere")
    (root / name).symlink_to(root.parent / "elsewhere")
    with pytest.raises(CacheError, match="symbolic link"):
        list(open_cache(root))


@pytest.mark.parametrize(
    "name", ["shards/000000.zarr/offsets/zarr.json", "shards/000000.zarr/input_ids/c/0"]
)
def test_a_file_missing_from_the_journal_is_not_opened(name: str, tmp_path: Path) -> None:
    root = make_cache(tmp_path / "c", SHARDS, "zarr")
    rewrite_record(root, lambda content: content["files"].pop(name))
    (root / name).unlink()
    os.mkfifo(root / name)  # opening it would block
    with pytest.raises(CacheError, match="not one of the files that the journal lists"):
        list(open_cache(root))


@pytest.mark.parametrize("left_out", [5, {"a": "b"}, {"a": [1]}, None])
def test_inspect_refuses_invalid_provenance(left_out: object, root: Path) -> None:
    rewrite_manifest(root, lambda content: content.update(provenance={"left_out": left_out}))
    with pytest.raises(CacheError, match="no valid counts of left-out rows"):
        summarise_cache(root)


@pytest.mark.parametrize(
    "name", ["attachments/" + "x" * 300, "attachments/\ud800", "attachments/a\0b"]
)
def test_impossible_file_names_are_refused(name: str, root: Path) -> None:
    rewrite_manifest(root, lambda content: content["attachments"][0].update(name=name))
    assert_refused(root)


def test_another_version_is_distinguished_from_damage(root: Path) -> None:
    """The first version sealed its manifest differently."""
    (root / "manifest.json").write_text(
        json.dumps({"kind": "llm-modules cache", "version": 1, "sha256": "0" * 64})
    )
    with pytest.raises(CacheError, match="not a version 4 cache") as error:
        open_cache(root)
    assert not isinstance(error.value, DamagedCacheError)


def test_a_valid_cache_is_accepted(root: Path) -> None:
    """The caches above are refused for their change, not for being rewritten."""
    rewrite_manifest(root, lambda content: content.update(provenance={"note": "x"}))
    rewrite_record(root, lambda content: content.update(provenance={"note": "x"}))
    assert len(list(open_cache(root))) == 3
    assert verify_cache(root).whole
    assert json.loads((root / "manifest.json").read_text())["provenance"] == {"note": "x"}
