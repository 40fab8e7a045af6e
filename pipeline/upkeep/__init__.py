"""Maintenance of a cache with its teacher: repair, deep verification, recoding, comparisons."""
