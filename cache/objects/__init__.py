"""Caches in object stores: shards are objects, a lease says who writes, and copies of what is in use lie on this machine."""
