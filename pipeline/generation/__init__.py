"""A trained student that writes, with its teacher live."""
