"""A training run on disk: settings, folder, record, and comparison runs."""
