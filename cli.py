"""The command line, `python cli.py` or `llm-modules`; see `pipeline/commands/`."""

from pipeline.commands import main

if __name__ == "__main__":
    main()
