"""What each command does once its options and paths have been looked at: the libraries, bars, and
results in words."""
