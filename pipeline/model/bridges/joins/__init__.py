"""Joins: how a prompt's hidden states reach a student, one class per value of `--join`."""
