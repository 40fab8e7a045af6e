"""The teacher: finding, identifying and loading it, and computing its hidden states."""
