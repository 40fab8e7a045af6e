"""The label convention that batches, model and training share."""

IGNORE = -100
"""Label of a position without loss, as in torch's `cross_entropy`."""
