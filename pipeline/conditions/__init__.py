"""What a student reads: one object per condition, and what follows from it."""
