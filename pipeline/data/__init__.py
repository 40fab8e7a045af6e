"""From rows of a data set to tokens with a loss mask."""
