"""Beginning a cache in its local folder, and recognising one that was begun."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cache.errors import DamagedCacheError
from cache.files import (
    REPAIR,
    bytes_below,
    checksum_of,
    copy_contents,
    files_below,
    fsync_tree,
    remove,
)
from cache.identity import require_same_identity
from cache.journal import begin_journal, scan_journal
from cache.manifest import AttachedFile, Manifest, parse_manifest, read_manifest
from cache.names import ATTACHMENTS, JOURNAL_NAME, MANIFEST_NAME, SHARDS

_LAYOUT = ("format", "shard_tokens", "layers", "codecs")


def begun_manifest(root: Path, wanted: Manifest) -> Manifest:
    """Return a folder's manifest; refuse that of another cache.

    Raises:
        CacheError: it describes another cache, or is damaged.
    """
    manifest = read_manifest(root)
    require_same_identity(
        root,
        {**manifest.identity, **{name: getattr(manifest, name) for name in _LAYOUT}},
        {**wanted.identity, **{name: getattr(wanted, name) for name in _LAYOUT}},
    )
    return manifest


def require_nothing_published(root: Path) -> None:
    """Refuse a folder without a manifest that has, or may have, published shards.

    A writer that dies before it writes the manifest leaves only a journal.

    Raises:
        DamagedCacheError: shards were published here, or may have been.
    """
    if not (root / JOURNAL_NAME).exists():
        return
    journal = scan_journal(root)
    if journal.records or journal.damage or bytes_below(root / SHARDS):
        raise DamagedCacheError(
            f"{root / MANIFEST_NAME}: missing, although there are shards; {REPAIR}"
        )


def begin_locally(root: Path, wanted: Manifest, attachments: Path) -> Manifest:
    """Write a cache without shards into a folder, and return its manifest.

    The journal is written first and marks the folder as one of this project; the manifest is
    written last and makes it a cache.

    Raises:
        DamagedCacheError: shards were published here, or may have been.
    """
    require_nothing_published(root)
    manifest = replace(wanted, attachments=_attached_files(attachments))
    parse_manifest(manifest.as_json(), root / MANIFEST_NAME)
    begin_journal(root, manifest)
    for name in (ATTACHMENTS, SHARDS):
        remove(root / name)
    (root / ATTACHMENTS).mkdir()
    copy_contents(attachments, root / ATTACHMENTS)
    (root / SHARDS).mkdir()
    fsync_tree(root)
    manifest.write(root)
    return manifest


def _attached_files(attachments: Path) -> tuple[AttachedFile, ...]:
    """Return the manifest's entries for the files of a folder."""
    return tuple(
        AttachedFile(
            f"{ATTACHMENTS}/{path.relative_to(attachments).as_posix()}",
            path.stat().st_size,
            checksum_of(path),
        )
        for path in files_below(attachments)
    )
