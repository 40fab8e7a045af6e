"""The label convention of batches, model and training."""

IGNORE = -100
"""Label of a position without loss, as in torch's `cross_entropy`."""
