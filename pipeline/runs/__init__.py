"""A training run on disk: its settings, its folder, its record, and the runs it is compared
with."""
