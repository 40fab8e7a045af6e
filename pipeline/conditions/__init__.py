"""Conditions: what a student reads, one object per condition."""
