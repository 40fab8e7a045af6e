"""Final results of answers: extraction from a text, and comparison."""
