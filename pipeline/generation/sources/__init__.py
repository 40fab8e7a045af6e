"""Sources of hidden states for generation, one class per condition."""
