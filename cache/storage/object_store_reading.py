"""Reading a cache in an object store through local copies of its shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from cache.errors import CacheError, DamagedCacheError
from cache.files import REPAIR, inside
from cache.names import SHARDS
from cache.shard.record import ShardRecord
from cache.storage.bucket import Bucket
from cache.storage.interface import Pin
from cache.storage.local_copies import LocalCopies
from cache.storage.prefetch import Prefetcher

if TYPE_CHECKING:
    from cache.storage.object_store import ObjectStoreLocation


class ObjectStoreReadSession:
    """Reads a cache whose index has been downloaded; pinning a shard downloads it.

    Readers compare local copies with their checksums.
    """

    def __init__(self, location: ObjectStoreLocation, bucket: Bucket, copies: LocalCopies) -> None:
        self.location, self.folder = location, location.folder
        self._bucket, self._copies = bucket, copies
        self._prefetcher: Prefetcher | None = None

    def pin(
        self,
        record: ShardRecord,
        *,
        refetch: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Pin:
        """See `ReadSession.pin`."""
        if not record.files:
            return Pin()
        shard = next(iter(record.files)).removeprefix(f"{SHARDS}/").split("/")[0]
        return self._pin(shard, list(record.files), refetch=refetch, cancelled=cancelled)

    def pin_unrecorded(self, name: str) -> Pin:
        """See `ReadSession.pin_unrecorded`; existing local copies are replaced."""
        shard = PurePosixPath(name).name
        names = list(self._bucket.sizes(f"{SHARDS}/{shard}"))
        return self._pin(shard, names, refetch=True, cancelled=lambda: False)

    def prefetch(self, records: Sequence[ShardRecord]) -> None:
        """See `ReadSession.prefetch`."""
        if self._prefetcher is None:
            self._prefetcher = Prefetcher(
                lambda record, cancelled: self.pin(record, cancelled=cancelled).release()
            )
        self._prefetcher.request(records)

    def close(self) -> None:
        """See `ReadSession.close`."""
        if self._prefetcher is not None:
            self._prefetcher.close()
            self._prefetcher = None

    def _pin(
        self, shard: str, names: Sequence[str], *, refetch: bool, cancelled: Callable[[], bool]
    ) -> Pin:
        self._require_names_of(shard, [f"{SHARDS}/{shard}"])

        def download(staged: Path) -> None:
            self._require_names_of(shard, names)
            stored = self._bucket.sizes(f"{SHARDS}/{shard}")
            sizes = {name: stored[name] for name in names if name in stored}
            if not sizes:
                raise DamagedCacheError(
                    f"{self.location.address}/{SHARDS}/{shard}: missing; {REPAIR}"
                )
            targets = {name: staged.joinpath(*PurePosixPath(name).parts[2:]) for name in sizes}
            self._copies.make_room(sum(sizes.values()), lambda: _allocate(targets, sizes))
            self._bucket.download(sizes, targets, cancelled)

        return self._copies.pin(shard, download, refetch=refetch)

    def _require_names_of(self, shard: str, names: Sequence[str]) -> None:
        """Refuse names that cannot be files of the shard, before they are used as paths."""
        for name in names:
            try:
                plain = inside(self.folder, name).relative_to(self.folder).as_posix()
            except CacheError:
                plain = ""
            if plain != name or name.split("/")[:2] != [SHARDS, shard]:
                raise DamagedCacheError(
                    f"{self.location.address}: {name!r} is not a file of shard {shard!r}; {REPAIR}"
                )


def _allocate(targets: Mapping[str, Path], sizes: Mapping[str, int]) -> None:
    """Create the files with their full sizes, which other processes then count."""
    for name, path in targets.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as stream:
            stream.truncate(sizes[name])
