"""Processes that run the teacher: this one, Ray actors, or the ranks started by torchrun."""
