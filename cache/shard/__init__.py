"""A shard: its segments and their layout, reading and writing its files, the prefixes that examples
share."""
