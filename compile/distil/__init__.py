"""Training: configuration, data, losses and the loop (torch only in the last three)."""
