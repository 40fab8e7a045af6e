"""How a student takes what it reads: one bridge class per condition."""
