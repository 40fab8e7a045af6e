"""A cache in an object store: published by journal entries, read through copies on this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from cache.errors import CacheError, DamagedCacheError
from cache.files import MEND, damage_of, files_below, inside, remove, write_atomically
from cache.journal import scan_journal
from cache.journal_writer import JournalWriter
from cache.manifest import Manifest, read_manifest
from cache.names import ATTACHMENTS, JOURNAL_NAME, MANIFEST_NAME, SHARDS
from cache.shard.record import ShardRecord
from cache.storage.bucket import Bucket
from cache.storage.conditional_put import PROBE, require_conditional_put
from cache.storage.entries import ENTRIES, Entries, journal_with_entries
from cache.storage.interface import Hold
from cache.storage.lease import Lease, require_free
from cache.storage.local_copies import Copies, name_of

COPIES_LIMIT = 20 * 10**9
"""Bytes of copies on this machine, where the user says nothing."""


def usual_copies() -> Path:
    """The folder of copies where the user names none.

    Raises:
        CacheError: the user has no home folder.
    """
    try:
        return (
            Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            / "llm-modules"
            / "copies"
        )
    except RuntimeError as error:
        raise CacheError(
            "this user has no home folder for copies of what an object store holds; name one with"
            " --copies"
        ) from error


class ObjectStore:
    """A cache below `s3://bucket/prefix`.

    Its objects are the files of a cache in a folder, so that either can be made of the other by
    copying. A shard is published by its journal entry, an object that is made only where there is
    none; when all are there, they become the journal itself."""

    is_remote = True

    def __init__(
        self,
        address: str,
        endpoint: str | None = None,
        copies: Path | None = None,
        copies_limit: int | None = None,
    ) -> None:
        """Name a place; nothing is asked of the store yet.

        Args:
            address: `s3://bucket/prefix`.
            endpoint: URL of an S3-compatible server; None: what the environment says, or AWS.
            copies: folder for copies of what is in use, on this machine; None: below the user's own
                cache folder.
            copies_limit: bytes that they may take, those of other caches in that folder included;
                None: 20 GB.

        Raises:
            CacheError: the address is not one of a bucket with a prefix.
        """
        named = (
            endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        )
        self.address, self.endpoint = address.rstrip("/"), named
        self._copies_root = (copies or usual_copies()).absolute()
        self._limit = COPIES_LIMIT if copies_limit is None else copies_limit
        self._bucket = Bucket(self.address, self.endpoint)
        self._copies = Copies(self._copies_root, name_of(self.address, self.endpoint), self._limit)
        self._lease: Lease | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process asks the store itself."""
        return ObjectStore, (self.address, self.endpoint, self._copies_root, self._limit)

    @property
    def recorded(self) -> str:
        """As `Place.recorded`."""
        return self.address

    @property
    def folder(self) -> Path:
        """As `Place.folder`."""
        return self._copies.folder

    @property
    def most_held(self) -> int | None:
        """As `Place.most_held`."""
        return self._limit

    @property
    def held_bytes(self) -> int:
        """As `Place.held_bytes`."""
        return self._copies.held_bytes()

    @contextlib.contextmanager
    def naming_errors(self) -> Iterator[None]:
        """As `Place.naming_errors`."""
        try:
            yield
        except CacheError as error:
            text = str(error).replace(str(self.folder), self.address)
            if text == str(error):
                raise
            raise type(error)(text) from error

    def refresh(self) -> None:
        """As `Place.refresh`. While another process of this machine writes here, what it knows is
        in the folder already."""
        with self._copies.alone(".refresh"):
            if self._lease is None and self._copies.is_held(".writing"):
                return
            # Entries are read before the journal, into which they vanish when the cache is
            # complete.
            entries = self._bucket.get_all(sorted(self._bucket.sizes(ENTRIES)))
            found = self._bucket.get_all([JOURNAL_NAME, MANIFEST_NAME])
            journal = journal_with_entries(
                found[JOURNAL_NAME], [line for line in entries.values() if line]
            )
            _replace(self.folder / JOURNAL_NAME, journal)
            _replace(self.folder / MANIFEST_NAME, found[MANIFEST_NAME])
            self._bring_attachments()

    def _bring_attachments(self) -> None:
        try:
            manifest: Manifest | None = read_manifest(self.folder)
        except CacheError:  # whoever reads the manifest says what is wrong with it
            manifest = scan_journal(self.folder).manifest
        if manifest is None:
            return
        attached = {file.name: file for file in manifest.attachments}
        for path in files_below(self.folder / ATTACHMENTS):
            if path.relative_to(self.folder).as_posix() not in attached:
                remove(path)
        wanted = [
            f.name for f in attached.values() if damage_of(self.folder, f.name, f.bytes, f.checksum)
        ]
        for name, content in self._bucket.get_all(wanted).items():
            path = inside(self.folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content)

    def entries(self) -> set[str]:
        """As `Place.entries`; journal entries are part of the journal."""
        return {
            name
            for name in self._bucket.entries()
            if name != ENTRIES and not name.startswith(PROBE)
        }

    def names(self) -> Iterator[str]:
        """As `Place.names`; journal entries are part of the journal."""
        return (
            name
            for name in sorted(self._bucket.sizes())
            if not name.startswith((f"{ENTRIES}/", PROBE))
        )

    def check_sizes(self, files: Mapping[str, tuple[int, str]]) -> None:
        """As `Place.check_sizes`."""
        if not files:
            return
        shards = {PurePosixPath(name).parts[:2] for name in files}
        there = self._bucket.sizes("/".join(next(iter(shards))) if len(shards) == 1 else SHARDS)
        for name, (size, _) in files.items():
            found = there.get(name)
            if found != size:
                what = "missing" if found is None else f"{found} bytes where {size} were written"
                raise DamagedCacheError(f"{self.address}/{name}: {what}; {MEND}")

    def hold(
        self,
        record: ShardRecord,
        *,
        anew: bool = False,
        unwanted: Callable[[], bool] = lambda: False,
    ) -> Hold:
        """As `Place.hold`. Copies are what the store has: whoever opens them compares them with
        their checksums.

        Args:
            record, anew: as of `Place.hold`.
            unwanted: asked now and then, whether to give up.
        """
        if not record.files:
            return Hold()
        shard = next(iter(record.files)).removeprefix(f"{SHARDS}/").split("/")[0]
        return self._hold(shard, list(record.files), anew=anew, unwanted=unwanted)

    def hold_named(self, shard: str) -> Hold:
        """As `Place.hold_named`."""
        name = PurePosixPath(shard).name
        return self._hold(
            name, list(self._bucket.sizes(f"{SHARDS}/{name}")), anew=True, unwanted=lambda: False
        )

    def _hold(
        self, shard: str, names: Sequence[str], *, anew: bool, unwanted: Callable[[], bool]
    ) -> Hold:
        self._require_of(shard, [f"{SHARDS}/{shard}"])

        def bring(staged: Path) -> None:
            self._require_of(shard, names)
            there = self._bucket.sizes(f"{SHARDS}/{shard}")
            sizes = {name: there[name] for name in names if name in there}
            if not sizes:
                raise DamagedCacheError(f"{self.address}/{SHARDS}/{shard}: missing; {MEND}")
            targets = {name: staged.joinpath(*PurePosixPath(name).parts[2:]) for name in sizes}
            self._copies.make_room(sum(sizes.values()), lambda: _take_room(targets, sizes))
            self._bucket.download(sizes, targets, unwanted)

        return self._copies.hold(shard, bring, anew=anew)

    def _require_of(self, shard: str, names: Sequence[str]) -> None:
        """Refuse names that a shard's files cannot have, before anything is made of them."""
        for name in names:
            try:
                plain = inside(self.folder, name).relative_to(self.folder).as_posix()
            except CacheError:
                plain = ""
            if plain != name or name.split("/")[:2] != [SHARDS, shard]:
                raise DamagedCacheError(
                    f"{self.address}: {name!r} is no file of a shard {shard!r}; {MEND}"
                )

    @contextlib.contextmanager
    def apart(self) -> Iterator[ObjectStore]:
        """As `Place.apart`: copies of its own, no more than are held."""
        with self._copies.apart() as copies:
            yield ObjectStore(self.address, self.endpoint, copies, 0)

    def claim(self, shard: str) -> Hold:
        """As `Place.claim`."""
        self.folder.joinpath(SHARDS).mkdir(parents=True, exist_ok=True)
        return self._copies.alone(PurePosixPath(shard).name)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """As `Place.alone`. On this machine the folder is the writer's, too, until it is done."""
        with Lease(self._bucket) as lease, self._copies.alone(".writing"):
            self._lease = lease
            try:
                self.refresh()
                yield
            finally:
                self._lease = None

    def require_unlocked(self) -> None:
        """As `Place.require_unlocked`."""
        require_conditional_put(self._bucket)
        require_free(self._bucket)

    def keep_beginning(self) -> None:
        """As `Place.keep_beginning`. Nothing is published yet: what lies there is what a writer
        left that died."""
        for folder in (ENTRIES, SHARDS, ATTACHMENTS):
            self._bucket.delete(self._bucket.sizes(folder))
        attached = [
            path.relative_to(self.folder).as_posix()
            for path in files_below(self.folder / ATTACHMENTS)
        ]
        self.keep([JOURNAL_NAME, *attached])
        self.keep([MANIFEST_NAME])

    def keep_shard(self, record: ShardRecord) -> None:
        """As `Place.keep_shard`; the copy stays as long as there is room for it."""
        if self._lease is not None:  # other processes of a writer's store what it asks them for
            self._require_lease()
        self._bucket.upload(self.folder, record.files)
        self._copies.make_room(0)

    def keep(self, names: Sequence[str]) -> None:
        """As `Place.keep`."""
        self._require_lease()
        self._bucket.upload(self.folder, names)

    def remove(self, names: Sequence[str]) -> None:
        """As `Place.remove`."""
        self._require_lease()
        self._bucket.delete(names)

    @contextlib.contextmanager
    def publishing(self) -> Iterator[Entries]:
        """As `Place.publishing`."""
        with JournalWriter(self.folder) as copy:
            yield Entries(self._bucket, copy, self._require_lease)

    def settle(self) -> None:
        """As `Place.settle`: the entries become one journal, as a folder has it."""
        entries = self._bucket.sizes(ENTRIES)
        if entries:
            self.keep([JOURNAL_NAME])
            self._bucket.delete(entries)

    def _require_lease(self) -> None:
        assert self._lease is not None, "only who writes alone publishes"
        self._lease.require_held()


def _replace(path: Path, content: bytes | None) -> None:
    """Make a file what it is to be, or remove it; untouched where it is that already."""
    if content is None:
        remove(path)
    elif not path.is_file() or path.read_bytes() != content:
        write_atomically(path, content)


def _take_room(targets: Mapping[str, Path], sizes: Mapping[str, int]) -> None:
    """Files of their full sizes, to be filled: whoever counts what there is counts them."""
    for name, path in targets.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as stream:
            stream.truncate(sizes[name])
