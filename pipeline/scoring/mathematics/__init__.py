"""Final results of answers: where they stand in a text, and whether two are the same."""
