"""A trained student that generates text."""
