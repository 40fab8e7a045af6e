"""A shard: its segments and layout, reading and writing its files, and shared prefixes."""
