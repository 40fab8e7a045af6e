"""What was transferred: losses, answers and scores beside companions."""
