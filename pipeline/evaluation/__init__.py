"""Evaluate a student: losses, answers and scores, relative to comparison runs."""
