"""Local copies of a remote cache's manifest, journal and attachments."""

from __future__ import annotations

from pathlib import Path

from cache.errors import CacheError
from cache.files import damage_of, files_below, inside, remove, write_atomically
from cache.journal import scan_journal
from cache.manifest import Manifest, read_manifest
from cache.names import ATTACHMENTS, JOURNAL_NAME, MANIFEST_NAME
from cache.storage.bucket import Bucket
from cache.storage.journal_entries import ENTRIES, merge_entries


def download_index(bucket: Bucket, folder: Path) -> None:
    """Update the local manifest, journal and attachments.

    Raises:
        CacheError: access is denied.
        OSError: the object store cannot be reached.
    """
    # Entries are read before the journal, into which they are merged when the cache is complete.
    entries = bucket.get_all(sorted(bucket.sizes(ENTRIES)))
    index = bucket.get_all([JOURNAL_NAME, MANIFEST_NAME])
    lines = [line for line in entries.values() if line]
    _replace(folder / JOURNAL_NAME, merge_entries(index[JOURNAL_NAME], lines))
    _replace(folder / MANIFEST_NAME, index[MANIFEST_NAME])
    _download_attachments(bucket, folder)


def _download_attachments(bucket: Bucket, folder: Path) -> None:
    try:
        manifest: Manifest | None = read_manifest(folder)
    except CacheError:  # reported when the manifest is read
        manifest = scan_journal(folder).manifest
    if manifest is None:
        return
    attached = {file.name: file for file in manifest.attachments}
    for path in files_below(folder / ATTACHMENTS):
        if path.relative_to(folder).as_posix() not in attached:
            remove(path)
    outdated = [
        file.name
        for file in attached.values()
        if damage_of(folder, file.name, file.bytes, file.checksum)
    ]
    for name, content in bucket.get_all(outdated).items():
        path = inside(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content)


def _replace(path: Path, content: bytes | None) -> None:
    """Replace a file's content, or remove the file; do not touch an unchanged one."""
    if content is None:
        remove(path)
    elif not path.is_file() or path.read_bytes() != content:
        write_atomically(path, content)
