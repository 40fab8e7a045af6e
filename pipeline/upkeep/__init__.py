"""What a cache needs after it is extracted: repair, comparison with the live teacher, new
codecs."""
