"""The file of answers and what lies beside it: lock, journal, record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cache.files import remove, sha256_of, write_atomically
from cache.identity import Identity, differences
from cache.lock import FileLock
from cache.sealed_json import seal, unseal
from pipeline.errors import InputError


class OutFile:
    """A file of answers, written by one process at a time.

    None of the files beside it has an ending of a data file, so a folder of answers is a data set.

    Attributes:
        path: of the rows; the file appears when it is complete.
        journal: the answers so far, while it is not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path.with_name(f"{path.name}.unfinished")
        self._record = path.with_name(f"{path.name}.record")

    def locked(self) -> FileLock:
        """Return the lock that a writer needs; create the folder."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = self.path.with_name(f".{self.path.name}.lock")
        return FileLock(lock, self.path, "this file")

    def finished_result(self, identity: Identity) -> dict[str, Any] | None:
        """Return the recorded result of a finished file; None if it is not finished.

        Raises:
            InputError: the file has another identity or origin, or was changed.
        """
        if not self.path.exists():
            return None
        try:
            record = unseal(self._record.read_bytes())
            recorded, digest, result = record["identity"], record["rows_sha256"], record["result"]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{self.path}: exists and has no record of `answer`; choose another --out"
            ) from error
        if phrases := differences(recorded, identity):
            raise InputError(
                f"{self.path}: was written with other settings ({'; '.join(phrases)}); choose"
                " another --out, or delete it"
            )
        if sha256_of(self.path) != digest:
            raise InputError(
                f"{self.path}: was changed after it was written; choose another --out, or delete it"
            )
        return dict(result)

    def publish(self, rows: bytes, digest: str, identity: Identity, result: dict[str, Any]) -> None:
        """Write the rows by a rename, their record first; remove the journal.

        Args:
            rows: the whole content.
            digest: its SHA-256.
            identity: of the file.
            result: what `finished_result` returns later.
        """
        record = {"identity": identity, "rows_sha256": digest, "result": result}
        write_atomically(self._record, seal(record, indented=True))
        write_atomically(self.path, rows)
        self.discard_journal()

    def discard_journal(self) -> None:
        """Remove the journal of a finished file."""
        remove(self.journal)
