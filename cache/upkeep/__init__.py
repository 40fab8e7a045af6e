"""Maintenance of a cache without a model: verify, repair, convert, disk space."""
