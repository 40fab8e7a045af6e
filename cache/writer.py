"""Writing a cache: begin or continue one, then publish shard after shard."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cache.codecs import codec_named
from cache.errors import CacheError, DamagedCacheError, OtherContentError
from cache.example import Example
from cache.files import MEND, check_file, checksum_of, files_below, fsync_tree, publish, require_local
from cache.formats import format_named
from cache.identity import require_same_identity
from cache.journal import JOURNAL_NAME, JournalWriter, ShardRecord, begin_journal, read_journal, scan_journal
from cache.lock import WriterLock
from cache.manifest import ATTACHMENTS, MANIFEST_NAME, AttachedFile, Manifest, parse_manifest, read_manifest
from cache.open_shard import SHARDS, shard_name
from cache.shard import content_digest, example_checksums, shard_arrays, shard_attributes

OWN_NAMES = {".lock", ATTACHMENTS, SHARDS, MANIFEST_NAME, f"{MANIFEST_NAME}.partial", JOURNAL_NAME, f"{JOURNAL_NAME}.partial"}
"""What may stand in a cache's folder."""


class CacheWriter:
    """Publishes shards into one cache folder. Get one from `write_cache`."""

    def __init__(self, root: Path, manifest: Manifest, journal: JournalWriter) -> None:
        self.root, self.manifest, self._journal = root, manifest, journal
        self.published = {record.shard: record for record in read_journal(root, manifest)}

    def missing_shards(self) -> list[int]:
        """Numbers of the shards that are still to be published."""
        return [shard for shard in range(self.manifest.shards) if shard not in self.published]

    def publish(
        self,
        shard: int,
        examples: Sequence[Example],
        *,
        non_finite: Mapping[str, int] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> ShardRecord:
        """Write one shard and publish it: until this returns it does not exist, from then on it is whole and durable.

        Args:
            shard: its number.
            examples: what it holds; none where all were left out.
            non_finite: examples left out because the teacher gave no finite states: tokens by row id.
            provenance: how the shard was made; recorded, not compared.

        Raises:
            OSError: the disk is full, or the cache's folder has vanished. What was published before is untouched.
        """
        self._journal.require_in_place()
        record = replace(
            store_shard(self.root, self.manifest, shard, examples),
            non_finite=dict(non_finite or {}),
            provenance=dict(provenance or {}),
        )
        self._journal.append(record)
        self.published[shard] = record
        return record


def store_shard(
    root: Path, manifest: Manifest, shard: int, examples: Sequence[Example], digest: str | None = None
) -> ShardRecord:
    """Put a whole, durable shard where the journal will look for it; what stood there is replaced.

    Raises:
        OtherContentError: `digest` is given and is not that of these examples; nothing has been touched.
    """
    container, codec = format_named(manifest.format), codec_named(manifest.codec)
    name = shard_name(manifest, shard)
    final = root / name
    staged = final.with_name(f"partial-{final.name}")
    _remove(staged)
    arrays = shard_arrays(examples, codec) if examples else {}
    found = content_digest(arrays)
    if digest not in (None, found):
        raise OtherContentError(f"shard {shard}: its content digest is {found}, that of the lost one was {digest}")
    if not examples:
        _remove(final)
        return ShardRecord(shard, {}, found, [], np.zeros(0, np.int64), np.zeros(0, np.uint64), 0)
    try:
        container.write(staged, arrays, shard_attributes(manifest.layers, codec))
        fsync_tree(staged)
    except OSError:
        with contextlib.suppress(OSError):
            _remove(staged)  # a full disk gets its space back
        raise
    files = {
        f"{name}/{path.relative_to(staged).as_posix()}" if staged.is_dir() else name: (path.stat().st_size, checksum_of(path))
        for path in files_below(staged)
    }
    _remove(final)  # published by name but not in the journal: its writer died in between
    publish(staged, final)
    return ShardRecord(
        shard=shard,
        files=files,
        digest=found,
        row_ids=[example.row_id for example in examples],
        lengths=arrays["offsets"][1:] - arrays["offsets"][:-1],
        checksums=example_checksums(arrays),
        state_bytes=sum(values.nbytes for array, values in arrays.items() if array.startswith("hidden_states/")),
    )


@contextlib.contextmanager
def write_cache(root: Path, wanted: Manifest, attachments: Path) -> Iterator[CacheWriter]:
    """Begin a cache, or continue the one that stands there, alone.

    Args:
        root: the cache's folder; made if need be.
        wanted: what the cache is to hold. Its `attachments` field is filled in here.
        attachments: a folder whose files travel with the cache; copied when the cache is begun.

    Raises:
        CacheError: the folder holds something else, another run's cache, or another process writes to it.
    """
    require_continuable(root, wanted)
    root.mkdir(parents=True, exist_ok=True)
    with WriterLock(root):
        manifest = _continued(root, wanted) if (root / MANIFEST_NAME).exists() else _begun(root, wanted, attachments)
        with JournalWriter(root) as journal:
            yield CacheWriter(root, manifest, journal)


def require_continuable(root: Path, wanted: Manifest) -> list[int]:
    """Check, without touching anything, that a cache can be begun or continued here; the shards still missing.

    Raises:
        CacheError: the folder holds something else, or another run's cache.
    """
    require_local(root)
    for path in (root, *root.parents):
        if path.exists() and not path.is_dir():
            raise CacheError(f"{path}: is a file; --cache names a folder")
    if root.is_dir() and (strangers := {entry.name for entry in root.iterdir()} - OWN_NAMES):
        raise CacheError(f"{root}: not a cache (it holds {min(strangers)!r}); choose a new folder for --cache")
    if not (root / MANIFEST_NAME).exists():
        if (root / JOURNAL_NAME).exists() and scan_journal(root).records:
            raise DamagedCacheError(f"{root / MANIFEST_NAME}: missing, yet the journal names shards; {MEND}")
        return list(range(wanted.shards))
    records = read_journal(root, _same_cache(root, wanted))
    for record in records:
        for name, (size, _) in record.files.items():
            check_file(root, name, size, None)
    return sorted(set(range(wanted.shards)) - {record.shard for record in records})


def _begun(root: Path, wanted: Manifest, attachments: Path) -> Manifest:
    for name in (ATTACHMENTS, SHARDS):
        _remove(root / name)
    shutil.copytree(attachments, root / ATTACHMENTS, symlinks=True)
    (root / SHARDS).mkdir()
    fsync_tree(root)
    manifest = replace(wanted, attachments=attached_files(root))
    parse_manifest(manifest.as_json(), root / MANIFEST_NAME)
    begin_journal(root, manifest)
    manifest.write(root)
    return manifest


def attached_files(root: Path) -> tuple[AttachedFile, ...]:
    """The attached files as they lie in the cache's folder."""
    return tuple(
        AttachedFile(path.relative_to(root).as_posix(), path.stat().st_size, checksum_of(path))
        for path in files_below(root / ATTACHMENTS)
    )


def _same_cache(root: Path, wanted: Manifest) -> Manifest:
    manifest = read_manifest(root)
    layout = ("format", "shard_tokens", "layers")
    require_same_identity(
        root,
        {**manifest.identity, **{name: getattr(manifest, name) for name in layout}},
        {**wanted.identity, **{name: getattr(wanted, name) for name in layout}},
    )
    return manifest


def _continued(root: Path, wanted: Manifest) -> Manifest:
    manifest = _same_cache(root, wanted)
    manifest.check_attachments(root)
    return manifest


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
