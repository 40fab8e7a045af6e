"""From a data set's rows to tokens with a loss mask."""
