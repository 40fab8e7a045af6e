"""The command line: `main` is what `cli.py` and the console script run."""

from pipeline.commands.shell import main

__all__ = ["main"]
