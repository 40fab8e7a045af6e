"""Scores that compare answers with references, as texts; no model is involved."""
