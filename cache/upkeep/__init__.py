"""What keeps a cache in order: verify, repair, convert, and the room that it takes."""
