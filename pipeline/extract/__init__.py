"""One pass of the frozen teacher over a data set, into a cache."""
