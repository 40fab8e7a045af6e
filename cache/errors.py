"""Errors of caches that cannot be trusted or used."""

from __future__ import annotations


class CacheError(Exception):
    """Not a complete cache, or not the expected one; the message says what, where and the fix."""


class DamagedCacheError(CacheError):
    """Part of a cache is missing or has changed since it was written."""


class OtherContentError(DamagedCacheError):
    """A shard that was extracted again differs from the lost one."""
