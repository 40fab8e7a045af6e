"""The frozen large model: finding, identifying and reading it."""
