"""The one convention that batches, model and training share."""

IGNORE = -100
"""Label of a position that carries no loss, as in torch's `cross_entropy`."""
