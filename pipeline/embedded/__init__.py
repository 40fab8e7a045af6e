"""The embedded default: a small teacher and a small data set within the package."""

from pathlib import Path

EMBEDDED_TEACHER = str(Path(__file__).parent / "teacher")
EMBEDDED_DATASET = str(Path(__file__).parent / "problems.jsonl")
