"""What a cache says when it cannot be trusted or used."""

from __future__ import annotations


class CacheError(Exception):
    """The folder is not a whole, known cache, or not the one that was asked for. The text says
    what, where, how to mend."""


class DamagedCacheError(CacheError):
    """A published shard is missing, cut, or its bytes are not the ones that were written."""


class OtherContentError(DamagedCacheError):
    """A shard that was made again does not hold what the lost one held."""
