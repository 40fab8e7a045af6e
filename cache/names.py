"""Names that a cache's options and files have, known without the libraries behind them."""

from __future__ import annotations

CONTAINER_NAMES = ("zarr", "hdf5")
"""Containers of the shards."""
EXACT = "bf16"
"""The codec that keeps every bit, and needs no calibration."""
CODEC_NAMES = (EXACT, "int8", "klt")
SHARDS = "shards"
"""The folder that shards lie in."""
MANIFEST_NAME = "manifest.json"
JOURNAL_NAME = "journal.jsonl"
ATTACHMENTS = "attachments"
"""The folder of small files that travel with the cache."""
