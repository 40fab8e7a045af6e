"""Bridges: how a student reads its inputs, one class per condition."""
