"""Names of a cache's options and files, without the libraries behind them."""

from __future__ import annotations

CONTAINER_NAMES = ("zarr", "hdf5")
EXACT = "bf16"
"""The codec that keeps every bit, and needs no calibration."""
CODEC_NAMES = (EXACT, "int8", "klt")
SHARDS = "shards"
"""The folder of the shards."""
MANIFEST_NAME = "manifest.json"
JOURNAL_NAME = "journal.jsonl"
ATTACHMENTS = "attachments"
"""The folder of small files that are stored with the cache."""
FITS = "codecs"
"""The folder of codec fits among the attachments."""


def zarr_codec_name(codec: str) -> str:
    """Return a codec's name in Zarr metadata."""
    return f"llm_modules.{codec}"
