"""Cached examples as padded batches."""
