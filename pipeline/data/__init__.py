"""Read rows of a data set, and tokenise them with a loss mask."""
