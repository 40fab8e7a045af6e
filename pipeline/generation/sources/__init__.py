"""Where a student's hidden states come from while it generates: one class per condition."""
