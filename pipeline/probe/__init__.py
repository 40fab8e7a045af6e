"""Linear probes: how well the cached states of each layer predict the answers."""
