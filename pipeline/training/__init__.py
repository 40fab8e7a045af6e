"""Train a student from a cache."""
