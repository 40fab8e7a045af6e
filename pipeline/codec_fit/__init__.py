"""What a codec loses: asked for in the user's terms, fitted to the data, measured."""
