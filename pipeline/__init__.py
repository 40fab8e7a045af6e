"""The pipeline, a room for each step of the data flow; see docs/ARCHITECTURE.md."""
