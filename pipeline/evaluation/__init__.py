"""What was transferred: losses, answers and scores, against comparison runs."""
