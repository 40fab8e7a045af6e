"""Generate text with a trained student."""
