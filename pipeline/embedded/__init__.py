"""The embedded default: a small teacher and a small data set that come with the project."""

from pathlib import Path

EMBEDDED_TEACHER = str(Path(__file__).parent / "teacher")
EMBEDDED_DATASET = str(Path(__file__).parent / "problems.jsonl")
